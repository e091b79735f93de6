"""Numbers that a platform dictates, or on which client and runtime must agree.

Figures of AWS are those of its service documentation, checked mid-2026.
"""

KIB = 1024
MIB = 1024 * KIB

# --- AWS Lambda and S3 ---------------------------------------------------------------------
EVENT_BYTES = 64 * KIB
"""Largest event that lambdamr sends. AWS takes 1 MB; small events keep a launch fast."""

FREE_SHARE = 0.8
"""Share of the account's free concurrency that a stage takes, unless `concurrency=` says more; of
all that is allowed, where a plan knows no account."""

POOL_IDLE_S = 10
"""Idle connections are dropped after so long: a sandbox that was frozen finds older ones dead."""

INVOKE_PATIENCE_S = 60.0
"""How long a launch that is throttled or finds AWS failing is repeated."""

INVOKES_AT_ONCE = 16
"""Launches under way at a time, of a client or a node of the tree; one takes about 30 ms."""

END_RESERVE_S = 10.0
END_RESERVE_SHARE = 0.2
"""Before the function's own time limit a worker stops, this long or this share of it, whichever is
less: to record what it stopped and hand over the rest of its lane."""

LATE_SHARE = 0.1
"""A task begun within this share of an invocation had all the time that there is."""

RUNTIME_MEMORY_MB = 24
"""Memory of a function that others than the task's process take: the runtime client and the
watchdog, whose pages the fork shares."""

GROWTH_SHARE = 0.06
GROWTH_MB = 128
"""What a process may grow between two looks of its watchdog, at most: the reserve for it."""

STEAL_S = 2.0
"""A waiting task runs chunks of its nested job itself if nobody has committed one for so long."""

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

S3_WRITES_PER_S = 3500
S3_READS_PER_S = 5500
"""Requests that S3 takes of one prefix before it answers 503; it splits prefixes that stay busy."""

CONCURRENCY = 1000
"""Executions at a time that AWS allows an account and region, unless it was asked for more."""

RAMP_PER_S = 100
"""New environments of one function per second beyond the first CONCURRENCY: 1,000 in 10 s."""

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

SHOWN_LOG_BYTES = 2 * KIB
"""How much of that an error message shows."""

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

LOGS_WANTED_S = 10.0
"""Where looks cost money, a running lane looks this often whether somebody wants to see what its
task writes; from then on it shows that every TOMBSTONE_S."""

LEAST_MEMORY_MB = 32
"""Least limit of a local worker: the process of an empty map takes 20 MB, of a map_reduce 27."""

HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""For the start of a local worker, unless the user has set some: memory of some MB comes in pages
of 2 MiB, each of which costs one fault (glibc >= 2.35, where the kernel leaves it to programs)."""

CHECK_S = 0.02
"""The watchdog looks at a task's process this often where its memory is limited."""

QUIET_CHECK_S = 0.1
"""The same where it is not, and no time limit ends before. 50 looks a second took 1.5 % of a
processor, and more from the caches of the task."""

# --- deploying to AWS ---------------------------------------------------------------------------
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
"""Python versions of AWS Lambda that lambdamr runs on."""

ARCHITECTURES = ("x86_64", "arm64")
"""Processors of AWS Lambda, as it names them."""

OLD_GLIBC_PYTHONS = ("3.11",)
"""These run on Amazon Linux 2 ..."""

OLD_GLIBC = 26
GLIBC = 34
"""... whose glibc is 2.26; the others on Amazon Linux 2023, with 2.34."""

DIRECT_UPLOAD_BYTES = 50 * MIB
"""A larger zip cannot be part of a request; Lambda takes it from S3."""

UNPACKED_BYTES = 250 * MIB
"""Function and layers together, unpacked; no quota raises it."""

MEMORY_MB = (128, 10_240)
TIMEOUT_S = (1, 900)
TMP_MB = (512, 10_240)
"""What a function may be given, both ends included."""

WORKER_MEMORY_MB = PLANNED_MEMORY_MB
WORKER_TIMEOUT_S = 900
WORKER_TMP_MB = 512
"""What the worker is given if nobody says otherwise. Only used seconds are billed, so the
longest limit costs nothing."""

SUPERVISOR_MEMORY_MB = 256
SUPERVISOR_TIMEOUT_S = 60
"""It reads a few objects and invokes a function."""

EVENT_AGE_S = 3600
"""How long AWS tries to start a queued event before it counts as failed."""

WORKER_RETRIES = 0
SUPERVISOR_RETRIES = 2
"""AWS's own retries of a failed event: none for workers, whose retries are ours and counted."""

RECURSION_GUARD = 16
"""AWS ends chains of so many invocations of functions by functions, unless told to allow them."""

FEW_CONCURRENT = 100
"""New accounts begin with 10 concurrent executions; below this one should ask for more."""

LOG_RETENTION_DAYS = (
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922,
    3288, 3653,
)  # fmt: skip
"""What CloudWatch takes as the days that logs are kept."""

WORKER_LOG_DAYS = 14
"""How long logs are kept if nobody says otherwise."""

EXPIRE_JOBS_DAYS = 14
EXPIRE_SHARED_DAYS = 90
"""Age at which S3 removes jobs and their shuffles; functions and data, which jobs share, later."""

ABORT_UPLOADS_DAYS = 1
"""Age at which S3 removes the parts of uploads that nobody finished."""
