"""The backend on AWS: functions that are deployed, and a bucket."""
