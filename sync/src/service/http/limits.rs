//! Every bound of the service's HTTP side, with its unit last (I10).

/// Headers of a request, names and values, and its target.
pub const HEADER_BYTES_MAX: usize = 16 << 10;
/// Headers of a request.
pub const HEADERS_MAX: usize = 100;
/// What a connection reads ahead and writes behind; above the headers, so that too many of them get an answer.
pub const CONNECTION_BUFFER_BYTES: usize = 64 << 10;
/// Streams of one HTTP/2 connection.
pub const CONNECTION_STREAMS_MAX: u32 = 64;
/// What a client may send ahead on one HTTP/2 stream; twice that on the connection.
pub const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// Wait for all headers of a request, idle time between requests included.
pub const HEADER_WAIT_SECONDS_MAX: u64 = 30;
/// Wait for a TLS handshake.
pub const HANDSHAKE_WAIT_SECONDS_MAX: u64 = 10;
/// Wait for the next bytes of a request's body.
pub const BODY_WAIT_SECONDS_MAX: u64 = 20;
/// What a body must bring on average after its first `BODY_WAIT_SECONDS_MAX`.
pub const BODY_BYTES_PER_SECOND_MIN: u64 = 1 << 10;
/// Wait until a client takes the next bytes of an answer.
pub const ANSWER_WAIT_SECONDS_MAX: u64 = 60;
/// What is read and thrown away of the body of a refused request, so that the answer is seen.
pub const REFUSED_BODY_BYTES_MAX: u64 = 4 << 20;
/// How long that may take.
pub const REFUSED_BODY_SECONDS_MAX: u64 = 5;
/// A JSON body of a route that takes one small object.
pub const FORM_BYTES_MAX: u64 = 64 << 10;
/// The body of a v1 upload of records.
pub const RECORDS_BYTES_MAX: u64 = 192 << 20;
/// Items of one v1 upload.
pub const RECORDS_MAX: u64 = 65_536;
/// One item of a v1 upload; longer transcripts go as blobs.
pub const ITEM_BYTES_MAX: usize = 16 << 20;
/// Items of a v1 upload that are taken in as one batch.
pub const BATCH_ITEM_BYTES_TARGET: usize = 4 << 20;
/// How often the bytes of items are in memory at once while they are taken in: as sent, canonical, decoded, compressed.
pub const ITEM_COPIES: usize = 4;
/// Items that one answer lists as skipped; the rest are counted.
pub const SKIPPED_SHOWN_MAX: usize = 1_000;
/// Depth at which a body is no longer looked at; items are refused far before.
pub const BODY_DEPTH_MAX: usize = 65_536;
/// A blob of a v1 upload.
pub const BLOB_BYTES_MAX: u64 = agent_trace_store::limits::OBJECT_BYTES_MAX;
/// What is reserved at once of an organisation's quota for a blob whose length was not said.
pub const BLOB_RESERVED_BYTES: u64 = 4 << 20;
/// Rows of a v1 page.
pub const PAGE_ROWS_MAX: usize = 1_000;
/// Rows of a v1 page where no number is asked for.
pub const PAGE_ROWS_DEFAULT: usize = 500;
/// Rows of a v1 page that are held at once.
pub const PAGE_ROWS_AT_ONCE: usize = 100;
/// A transcript at most this large stands in its pointer row, as agent-trace-cli sends it.
pub const INLINE_BYTES_MAX: u64 = 256 << 10;
/// Bodies that are held in memory while they come in; the next ones go to files.
pub const RECEIVE_BYTES_MAX: usize = 24 << 20;
/// Bodies that are held in memory while they are worked on; further ones wait.
pub const WORK_BYTES_MAX: usize = 64 << 20;
/// Bodies that lie in files at once; further ones are put off.
pub const SPOOL_BYTES_MAX: u64 = 8 << 30;
/// What is written to or read from such a file at once.
pub const SPOOL_STEP_BYTES: usize = 256 << 10;
/// Pieces of an answer that wait for the client.
pub const ANSWER_PIECES_MAX: usize = 4;
/// A piece of an answer.
pub const ANSWER_PIECE_BYTES: usize = 64 << 10;
/// Answers that are streamed at once; further ones wait.
pub const STREAMS_MAX: usize = 32;
/// Requests that work on archives at once; further ones wait.
pub const WORKERS_MAX: usize = 8;
/// Archives that one search for a blob opens at most, beside those that are open.
pub const BLOB_ARCHIVES_OPENED_MAX: usize = 8;
/// Blobs that come in at once; further ones wait.
pub const STAGERS_MAX: usize = 32;
/// Wait for one of these.
pub const TURN_WAIT_SECONDS_MAX: u64 = 60;
/// Connections.
pub const CONNECTIONS_MAX: usize = 2_048;
/// Requests in progress; further ones are put off.
pub const REQUESTS_MAX: usize = 1_024;
/// Threads for blocking work.
pub const BLOCKING_THREADS_MAX: usize = 256;
/// Requests of one token per second on average, where nothing is configured.
pub const TOKEN_REQUESTS_PER_SECOND: u32 = 2_000;
/// Requests of one organisation, in those of one token.
pub const ORG_REQUESTS_TOKENS: u32 = 8;
/// Requests of one token that may come at once, in seconds of the average.
pub const TOKEN_BURST_SECONDS: u32 = 5;
/// Tokens whose requests are counted; those that are idle are forgotten first.
pub const COUNTED_TOKENS_MAX: usize = 65_536;
/// Rows of one answer to the admin.
pub const ADMIN_ROWS_MAX: usize = 1_000;
/// How long requests may go on after the service was told to stop.
pub const DRAIN_SECONDS_MAX: u64 = 20;
/// A request id that a client sends.
pub const REQUEST_ID_BYTES_MAX: usize = 64;
/// The admin's secret.
pub const ADMIN_SECRET_BYTES_MAX: usize = 4_096;

const _: () = assert!(CONNECTION_BUFFER_BYTES >= 2 * HEADER_BYTES_MAX);
const _: () = assert!(WORK_BYTES_MAX >= ITEM_BYTES_MAX + 2 * BATCH_ITEM_BYTES_TARGET);
const _: () = assert!(WORK_BYTES_MAX >= crate::limits::UPLOAD_CHUNK_BYTES_MAX);
const _: () = assert!(STREAMS_MAX + WORKERS_MAX + STAGERS_MAX < BLOCKING_THREADS_MAX);
const _: () = assert!(ITEM_BYTES_MAX >= agent_trace_store::limits::RECORD_BYTES_MAX);
