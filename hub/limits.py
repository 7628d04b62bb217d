"""Every bound of the hub in one place: value, unit, reason."""

DELIVERY_BYTES_MAX = 64 * 1024 * 1024  # a file; larger ones are refused before they are read (reliability.md §5)
HTTP_BODY_BYTES_MAX = 16 * 1024 * 1024  # one request body: an EPCIS capture of some 20,000 events
HTTP_WAITING_MAX = 256  # requests that wait for the door; one more gets 503 with Retry-After
MQTT_BODY_BYTES_MAX = 1024 * 1024  # one payload
MQTT_WAITING_MAX = 1000  # messages received and not yet acknowledged: the in-flight bound we give the broker
KAFKA_BATCH_MAX = 500  # messages a poll
INTAKE_BATCH_MAX = 200  # deliveries that share one append
FACTS_PER_APPEND_MAX = 5000  # facts in one transaction: ≈ 3 MB of WAL, well under a second inside the lock
FOLLOW_BATCH_MAX = 2000  # events a follower folds in one transaction
READ_BATCH_MAX = 2000  # events one read brings into memory
POLL_S = 1.0  # a follower looks by itself this often; NOTIFY only wakes it sooner
RETRY_FIRST_S = 0.1  # first wait before something unavailable is tried again
RETRY_MAX_S = 5.0  # longest wait between two tries
LOCK_TIMEOUT_S = 30.0  # a writer that waits longer for the append lock says so and tries again
STATEMENT_TIMEOUT_S = 60.0  # one query of the API or the CLI
FOLDER_SETTLED_S = 1.0  # a file that did not change for this long is whole
EXPORT_KEYS_MAX = 100  # differing keys that `verify` names for each table
