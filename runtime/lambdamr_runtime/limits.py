"""Numbers that a platform dictates, or on which client and runtime must agree.

Figures of AWS are those of its service documentation, checked mid-2026.
"""

KIB = 1024
MIB = 1024 * KIB

# --- AWS Lambda and S3 ---------------------------------------------------------------------
EVENT_BYTES = 64 * KIB
"""Largest event that lambdamr sends. AWS takes 1 MB; small events keep a launch fast."""

LIST_PAGE = 1000
"""Keys in one page of an S3 listing; a group of lanes is sized to fit one page."""

S3_MIN_PART_BYTES = 5 * MIB
"""Every part of a multipart upload but the last has as many."""

S3_MAX_PARTS = 10_000
"""Of one multipart upload."""

S3_MAX_COPY_BYTES = 5 * 1024 * MIB
"""S3 copies no larger object with one request."""

PLANNED_MEMORY_MB = 1769
"""Memory of a worker without a limit, for planning; that of one vCPU on AWS Lambda."""

# --- what travels inline, what is stored ------------------------------------------------------
INLINE_BYTES = 32 * KIB
"""A job whose functions and arguments together stay below this carries them in job.json and the
event: after base64 and the rest of the record, the event stays below EVENT_BYTES."""

INLINE_RESULT_BYTES = 256 * KIB
"""Results of a chunk up to this ride in its outcome; larger ones get an object of their own."""

WHOLE_ARGS_BYTES = 4 * MIB
"""A stage whose packed arguments are smaller is fetched whole and kept by the warm process;
a larger one is read chunk by chunk."""

LOG_BYTES = 64 * KIB
"""What is kept of a task's stdout and stderr: the tail."""

OUTPUT_BYTES = 16 * MIB
"""What the output of a running task may take on disk; more of it is freed, up to the tail."""

CACHE_BYTES = 512 * MIB
"""What a warm process keeps of functions, broadcast data and resolved references (as stored)."""

# --- lanes and chunks ---------------------------------------------------------------------------
LANES_PER_WORKER = 4
"""Lanes of a stage per local worker: whoever is free takes the next one, so that slow tasks,
however they lie, keep no worker idle."""

SLICE_S = 0.05
"""How long a lane keeps a local worker while others wait: then it goes to the end of the queue. So
long tasks run in input order, and a call made during a long map is not served after it."""

CHUNKS_PER_LANE = 32
"""Chunks per lane with automatic chunking: at most 1/32 of a lane's work is lost to imbalance."""

MAX_CHUNK_TASKS = 512
"""Automatic chunks never hold more tasks, so that results keep arriving in long jobs."""

CLIENT_INVOKES = 64
"""Most invocations the client makes to launch a stage; the tree does the rest."""

MAX_TREE_DEPTH = 4
"""AWS's recursion guard cuts chains of about 16; the launch tree stays far below."""

SLOWEST_MARGIN = 1.5
"""A lane begins a chunk only while this multiple of its slowest chunk so far is left."""

# --- failures -----------------------------------------------------------------------------------
INFRASTRUCTURE_RETRIES = 2
"""How often a task whose process died is tried again before it is TaskLost."""

JOB_LIMIT_MARGIN_S = 0.1
"""A task is ended so long after its job's time limit: by then every clock has passed it."""

SAME_FAILURES = 10
"""If a stage's first so many chunks all fail the same way, the stage ends."""

# --- waiting ------------------------------------------------------------------------------------
POLL_FIRST_S = 0.05
POLL_FLOOR_S = 2.0
POLL_SHARE = 0.01
POLL_MAX_S = 10.0
"""The poller's pause grows from POLL_FIRST_S to max(POLL_FLOOR_S, POLL_SHARE x elapsed), at most
POLL_MAX_S."""

STORE_PATIENCE_S = 300.0
"""A client gives a job up after so long without one successful look at the store."""

TOMBSTONE_S = 2.0
"""A running lane looks for a cancelled job this often; a queued event older than this looks
before it starts."""

NEAR_LOOK_S = 0.2
"""The same where a look costs microseconds: in a local directory."""

MEMORY_CHECK_S = 0.02
"""The watchdog reads the memory of a task's process this often."""
