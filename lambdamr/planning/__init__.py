"""One model of a job: tasks, waves, requests, time and dollars, before it runs and after.

drafts, packed job ─▶ shapes ─▶ counting ──▶ Count, Count, …  requests by stage, side and kind
ended job ──────────▶   │       waiting  ──▶ what looking at it costs
                        └─▶     estimating ▶ seconds, bytes, dollars ─▶ Plan or Cost
"""
