"""What a worker has beside Python: `requirements.txt`, installed as a part of the client.

This folder is the package `lambdamr.layer` (setup.cfg says so), so that whoever deploys has the
list that the tests hold the runtime to.
"""
