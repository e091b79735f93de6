"""A deterministic simulation of the whole protocol: one seed is one history.

    client: Engine, Poller ─┐                                ┌─ sweep (whoever looks)
                            ├─▶ SimulatedStore (one dict) ◀──┤
    worker: Worker ─────────┘        ▲                       └─ supervise
       └─ invoke ─▶ Cloud: delays, duplicates, losses, deaths ─▶ failure records ─┘

Everything in the picture but store, cloud and clock is the real code. Each actor is a greenlet and
gives way at every request, wait and launch; the seed decides who goes on, and what goes wrong.

    python -m tests.simulation --start 0 --count 1000
    python -m tests.simulation --seed 7 --trace
"""
