"""Every bound of the hub in one place: value, unit, reason."""

DELIVERY_BYTES_MAX = 64 * 1024 * 1024  # a file; larger ones are refused before they are read (reliability.md §5)
HTTP_BODY_BYTES_MAX = 16 * 1024 * 1024  # one request body: an EPCIS capture of some 20,000 events
HTTP_DURABLE_WAIT_S = 30.0  # a client that waits longer has gone; the delivery is still worked on, and a repeat is a duplicate
HTTP_WAITING_MAX = 256  # requests that wait for the door; one more gets 503 with Retry-After
HTTP_WAITING_BYTES_MAX = 64 * 1024 * 1024  # what they hold together, those in hand too; one more gets 503, unless it is alone
MQTT_BODY_BYTES_MAX = 1024 * 1024  # a payload that is taken apart
MQTT_WAITING_MAX = 1000  # messages received and not yet taken; then paho's thread waits, and so does the broker
KAFKA_QUEUE_BYTES_MAX = 16 * 1024 * 1024  # what the client fetches ahead, overshot by one fetch of the same size; also bounds a batch
KAFKA_COMMIT_S = 0.25  # done offsets are committed this often: what comes again after a kill -9 at most, beside the batch
KAFKA_SESSION_S = 6.0  # a dead member's partitions go to the others after this: the shortest that brokers allow by default
KAFKA_POLL_INTERVAL_S = 120.0  # a member that works longer on one batch gives its partitions up: four times the longest wait for the log
KAFKA_SETTLE_S = (
    150.0  # the group has handed out its partitions by then, or something is stuck: longer than the poll interval of any member
)
KAFKA_ASK_S = 10.0  # while nothing comes, the brokers are asked this often whether nothing is there
KAFKA_ANSWER_S = 5.0  # one answer of the brokers
RELAY_IN_FLIGHT_MAX = 10_000  # facts handed to the client and not reported; as many come again after a kill -9, and READ_BATCH_MAX more
RELAY_QUEUE_BYTES_MAX = 64 * 1024 * 1024  # what the client holds of them
RELAY_BATCH_BYTES = 1024 * 1024  # what one partition gets in one request, or what its topic takes, if that is less
RELAY_SILENT_S = 30.0  # brokers that report nothing of what they were sent for this long are connected to anew
RELAY_FINISH_S = 2.0  # at the end, for reports that are on their way
INTAKE_BATCH_MAX = 1000  # deliveries that share one append; in bytes each adapter bounds them
KEEP_BYTES_MAX = 4 * 1024 * 1024  # raw deliveries that one statement keeps, or one that is larger: PostgreSQL takes 1 GB
FACTS_PER_APPEND_MAX = 5000  # facts in one transaction: ≈ 3 MB of WAL, well under a second inside the lock
STREAM_HEADS_MAX = 500_000  # streams whose last version a writer remembers: some 60 MB
FOLLOW_BATCH_MAX = 2000  # events a follower folds in one transaction
READ_BATCH_MAX = 2000  # events one read brings into memory
POLL_S = 1.0  # a follower looks by itself this often; NOTIFY only wakes it sooner
RETRY_FIRST_S = 0.1  # first wait before something unavailable is tried again
RETRY_MAX_S = 5.0  # longest wait between two tries
LOCK_TIMEOUT_S = 30.0  # a writer that waits longer for the append lock says so and tries again
IDLE_IN_TRANSACTION_S = 10.0  # a paused door or follower loses its transaction and locks after this, well before a writer gives up
FOLLOW_LOCK_TIMEOUT_S = (
    15.0  # a follower that waits longer for its view says so: a paused holder has let go by then, a batch takes a second
)
SNAPSHOT_TRIES_MAX = 5  # a reader whose views were swapped while it began looks again
STATEMENT_TIMEOUT_S = 60.0  # one query of the API or the CLI
FOLDER_BATCH_BYTES_MAX = 32 * 1024 * 1024  # what one batch reads into memory, or one file if it is larger
FOLDER_SETTLED_S = 1.0  # a file that did not change for this long, or came so long after it was last written to, is whole
READY_LAG_S = 30.0  # a view that did not reach for this long what was there then: the hub is not ready
DISK_FREE_BYTES_MIN = 32 * 1024 * 1024  # two segments of the write-ahead log: with less under the private server a write may end it
EXPORT_KEYS_MAX = 100  # differing keys that `verify` names for each table
SPAN_LINKS_MAX = (
    128  # links of one span to the traces its facts came from, what OpenTelemetry takes by default; the span tells how many there were
)
LOG_MESSAGE_CHARS_MAX = 4000  # of one log message; the middle of a longer one is left out
LOG_TEMPLATE_CHARS = 600  # of its beginning and end that tell its kind
LOG_KINDS_MAX = 256  # kinds of messages that a process counts apart; further ones share an entry a level
LOG_TELL_FIRST_S = 1.0  # repetitions of a message are told after this, then after twice as long, …
LOG_TELL_MAX_S = 60.0  # … at least this often: what a kill -9 loses of their count
LOG_QUIET_S = 120.0  # a kind of message that was not seen for this long begins anew
VIEW_STUCK_S = (
    60.0  # a view that did not move for this long though a fact waited as long is stuck: a batch takes a second, the longest back-off five
)
METRICS_WRITE_S = 2.0  # a process of the hub leaves its numbers for `/metrics` this often
TRACE_END_S = 2.0  # an ending process waits at most this long for a collector to take its last spans
OPCUA_WAITING_MAX = 20_000  # values received and not yet taken, some 40 MB; what comes then is not confirmed, and asked for again
OPCUA_ITEMS_MAX = 20_000  # variables of one server
OPCUA_DEPTH_MAX = 32  # levels below a start
OPCUA_HISTORY_PAGE = 1000  # values of one answer
OPCUA_HISTORY_FIRST_S = 10.0  # what came waits at most so long for the history before it; what is left of that is read beside
OPCUA_HISTORY_ANSWER_S = 30.0  # for a page that is read beside; meanwhile a server may be silent
OPCUA_HISTORY_AGAIN_S = 10.0  # before history that cannot be read, or does not reach up to what came, is asked for again
OPCUA_HISTORY_TRIES = 3  # that bring nothing, before what is missing is told
OPCUA_BACKS_MAX = 20  # cuts of one variable whose history is still being read
OPCUA_REQUEST_MAX = 200  # nodes in one request: servers allow fewer than clients like
OPCUA_REPUBLISH_MAX = 1000  # messages that are asked for again; servers keep fewer
OPCUA_AGAIN_S = 10.0  # first wait before items that are missing are looked for again
OPCUA_AGAIN_MAX_S = 600.0  # and the longest
OPCUA_CUTS_MAX = 100  # ended subscriptions whose last moment is remembered
SPARKPLUG_METRICS_MAX = 20_000  # metrics of one payload: some 40 MB once it is taken apart
SPARKPLUG_WAITING_BYTES_MAX = 16 * 1024 * 1024  # of messages received and not yet taken; then paho's thread waits, and so does the broker
SPARKPLUG_NODES_MAX = 1000  # edge nodes that a host application follows; anybody who may publish can make up more
SPARKPLUG_TAGS_MAX = 200_000  # metrics that it follows over all of them: some 60 MB
SPARKPLUG_HELD_MAX = 250  # messages of an edge node that wait for one before them, of the 255 that its numbers can tell apart
SPARKPLUG_HELD_BYTES_MAX = 4 * 1024 * 1024  # what those hold
SPARKPLUG_GAPS_MAX = 32  # disconnected times of an edge node that its history may still fill; older ones stay as they were told
SPARKPLUG_REBIRTH_FIRST_S = 5.0  # a rebirth that brought no birth is asked for again after this, then after twice as long, …
SPARKPLUG_REBIRTH_MAX_S = 300.0  # … at least this often
SPARKPLUG_HISTORY_PAUSE_S = 0.5  # history that pauses for so long is told as far as it came
SPARKPLUG_HISTORY_QUIET_S = 5.0  # an edge node that sent history and then none for this long has sent it all
EDGE_BATCH_BYTES_MAX = 72 * 1024 * 1024  # a compressed batch of an edge: the largest delivery must get through, compressible or not
ERP_CONNECT_S = 5.0  # until the ERP takes a connection
ERP_ANSWER_S = 30.0  # one answer of it; after that nobody knows what became of the request
ERP_BUSY_WAITS_S = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # about, between the tries of what it had no room for
ERP_PAGE = 500  # records of one answer
ERP_KNOWN_S = 60.0  # the ids of items, units, places and suppliers of the ERP are asked for again after this
ERP_POLL_S = 2.0  # the ERP is asked this often for what was written there
ERP_OVERLAP_S = 600.0  # and for what was stamped so long before the newest of it: a transaction that was that long under way
ERP_SWEEP_S = 3600.0  # and for everything: what was under way for longer
MQTT_READINGS_BYTES_MAX = 8 * 1024 * 1024  # a payload of readings, twice as large in hex; a larger one is a gap
MQTT_WAITING_BYTES_MAX = 32 * 1024 * 1024  # payloads received and not yet taken, and of one batch, overshot by one: an edge has 256 MB
DECIDE_POLL_S = 0.1  # decisions of a process are looked for this often
POSTINGS_AT_ONCE = 4  # requests to one target that are under way together
POSTING_SETTLE_S = 60.0  # a claimed attempt that is silent for longer is asked for: no request is answered later
POSTING_LATE_S = 300.0  # after which a request that nobody waits for any more has landed or never will
POSTING_POLL_S = 0.5  # the ledger is looked at this often while nothing happens
POSTING_VIEW_S = 0.02  # what was said shows in the view after about this long
IDENTIFY_S = 5.0  # to look up who shows a token; one who waits longer is told to try again
IDENTIFY_AT_ONCE_MAX = 4  # look-ups of one process, which anybody may cause; more wait
SEEN_S = 60  # when a token was last used is kept to this
SIGN_IN_BYTES_MAX = 4096  # of the form
SESSION_S = 12 * 3600.0  # a session of the console: a shift and what follows it, however busy it is
SESSIONS_MAX = 1000  # of one process; the oldest ends for a newer one
SESSION_CHECK_S = (
    10.0  # an open page of a session that has ended is closed after this at its next word, which a browser says twice a minute
)
