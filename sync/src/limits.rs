//! Every bound of what is read from a remote, with its unit last (I10).

/// The URL of a remote.
pub const URL_BYTES_MAX: usize = 2048;
/// The name of an organisation or project of a service.
pub const SLUG_BYTES_MAX: usize = 64;
/// A token for a service.
pub const TOKEN_BYTES_MAX: usize = 4096;
/// The `format` file of a remote.
pub const FORMAT_BYTES_MAX: u64 = 4096;
/// Wait for another push or pull of the same store.
pub const EXCHANGE_WAIT_MICROS_MAX: u64 = 60_000_000;
/// The least length to which a sealed file is padded.
pub const PADDED_BYTES_LEAST: u64 = 1 << 10;
/// Frames of a sealed file that are read at once.
pub const SEALED_READ_FRAMES: u64 = 32;
/// A file of keys of a remote.
pub const KEYS_BYTES_MAX: u64 = 256 << 10;
/// Epochs of the key of a remote.
pub const KEY_EPOCHS_MAX: usize = 1024;
/// Members for whom a key is sealed.
pub const KEY_MEMBERS_MAX: usize = 256;
/// A recipient, as text.
pub const KEY_MEMBER_BYTES_MAX: usize = 128;
/// A passphrase.
pub const PASSPHRASE_BYTES_MIN: usize = 12;
/// A key file, or what a variable holds as a secret.
pub const SECRET_BYTES_MAX: u64 = 64 << 10;
/// Work for a passphrase: 2^17 rounds of scrypt, in 128 MiB.
pub const SCRYPT_LOG_N: u8 = 17;
/// The most work that a remote may ask for: twice that.
pub const SCRYPT_LOG_N_MAX: u8 = 18;
/// Heads that are kept in memory between being named and being read.
pub const FRESH_HEADS_BYTES_MAX: usize = 64 << 20;
/// Segments whose names on a remote are kept here.
pub const SEALED_NAMES_MAX: usize = 1 << 20;
/// A head.
pub const HEAD_BYTES_MAX: u64 = 10 << 20;
/// A manifest.
pub const MANIFEST_BYTES_MAX: u64 = 8 << 20;
/// Segments that one manifest adds, and segments that it replaces.
pub const MANIFEST_SEGMENTS_MAX: usize = 65_536;
/// Manifests that follow each other before one lists all segments of its writer again.
pub const MANIFEST_DEPTH_MAX: u32 = 64;
/// Heads of one remote.
pub const HEADS_MAX: usize = 65_536;
/// A received segment at least this large is kept as it is; smaller ones are appended to the open segment.
pub const ADOPT_BYTES_MIN: u64 = 4 << 20;
/// An open segment at least this large is sealed before a push, so that it may go as it is.
pub const SEAL_BYTES_MIN: u64 = 4 << 20;
/// New events from which on a push asks all names at once instead of one by one.
pub const BULK_EVENTS_MIN: usize = 2_000;
/// A segment at least this large, of which at least half is sent, goes as a segment of its own; parts of others are
/// gathered. In simulations segments are small.
pub const CUT_BYTES_MIN: u64 = if cfg!(feature = "sim") { 2 << 10 } else { 1 << 20 };
/// Wait for another process that uses a service's data folder.
pub const SERVICE_LOCK_WAIT_MICROS_MAX: u64 = 2_000_000;
/// Organisations of one service.
pub const ORGS_MAX: usize = 16_384;
/// Projects of one service.
pub const PROJECTS_MAX: usize = 131_072;
/// Tokens of one service, revoked ones too.
pub const TOKENS_MAX: usize = 131_072;
/// The name of an organisation, a project or a token, for people.
pub const NAME_BYTES_MAX: usize = 256;
/// What a project is about.
pub const DESCRIPTION_BYTES_MAX: usize = 4096;
/// The public part of a token.
pub const TOKEN_ID_BYTES_MAX: usize = 64;
/// What redb may keep of the accounts, all of which are in memory anyway.
pub const ACCOUNTS_CACHE_BYTES: usize = 1 << 20;
/// Archives of projects that stay open; more only while more are used at once.
pub const ARCHIVES_OPEN_MAX: usize = 64;
/// One chunk of an upload to a service.
pub const UPLOAD_CHUNK_BYTES_MAX: usize = 8 << 20;
/// Runs of events in one answer or question.
pub const RUNS_MAX: usize = 65_536;
/// Ids in one question to a service.
pub const QUESTION_IDS_MAX: usize = 16_384;
/// Segments of one commit.
pub const COMMIT_SEGMENTS_MAX: usize = 4_096;
/// Runs of events in the segments of one commit, which are all in memory while it is checked.
pub const COMMIT_RUNS_MAX: usize = 262_144;
/// Symbols that a reconciliation may take.
pub const SYMBOLS_MAX: usize = 262_144;
/// Symbols that a reconciliation asks for first.
pub const SYMBOLS_FIRST: usize = 256;
/// Times that a reconciliation asks for symbols.
pub const RECONCILE_ROUNDS_MAX: u32 = 16;
/// Tips in one part of a stream.
pub const PART_TIPS_MAX: usize = 4_096;
/// What is read of a segment at once while it is sent.
pub const STREAM_BUFFER_BYTES: usize = 128 << 10;
/// An error in a stream, as JSON.
pub const ERROR_BYTES_MAX: usize = 64 << 10;
/// A small JSON answer.
pub const JSON_ANSWER_BYTES_MAX: usize = 1 << 20;
/// Wait for a connection to a service.
pub const CONNECT_MICROS_MAX: u64 = 10_000_000;
/// Wait for the first byte of an answer to a small request.
pub const ANSWER_MICROS_MAX: u64 = 60_000_000;
/// Wait for the answer to a request that carries a large body, or that the service works on.
pub const WORK_MICROS_MAX: u64 = 900_000_000;
/// Wait for the next byte of an answer.
pub const IDLE_MICROS_MAX: u64 = 60_000_000;
/// How long a whole answer may take.
pub const WHOLE_MICROS_MAX: u64 = 6 * 3_600_000_000;
/// Tries of one request.
pub const TRIES_MAX: u32 = 5;
/// The first wait between two tries; each is twice as long as the one before.
pub const BACKOFF_MICROS_LEAST: u64 = 200_000;
/// The longest wait between two tries that the service does not ask for.
pub const BACKOFF_MICROS_MOST: u64 = 5_000_000;
/// The longest wait that a service may ask for.
pub const RETRY_AFTER_MICROS_MAX: u64 = 30_000_000;
/// What an answer says of a failure.
pub const REFUSAL_BYTES_MAX: u64 = 64 << 10;
/// A small answer in JSON.
pub const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// A page of a list for the admin.
pub const ADMIN_PAGE_BYTES_MAX: u64 = 16 << 20;
/// A page of records by protocol 1.
pub const PAGE_BYTES_MAX: u64 = 512 << 20;
/// Items of one page by protocol 1.
pub const PAGE_ITEMS_MAX: usize = 1000;
/// Items that one request by protocol 1 brings.
pub const LEGACY_ITEMS_MAX: usize = 500;
/// Bytes that one request by protocol 1 brings: a service of that protocol may close the connection above 11 MiB.
pub const LEGACY_BYTES_MAX: usize = 10 << 20;
/// A transcript up to this length goes inside its pointer by protocol 1.
pub const INLINE_BYTES_MAX: u64 = 256 << 10;
/// A commit that waits for its answer, as it is kept here.
pub const PENDING_BYTES_MAX: u64 = 64 << 20;
/// Segments of a stream that have come in and wait to be checked.
pub const SEGMENTS_AHEAD: usize = 1;
/// Objects elsewhere from which on a service is asked for them together, in segments, rather than one by one.
pub const BRING_TOGETHER_MIN: usize = 4;
/// Times that a pull asks again after a stream that was cut.
pub const STREAMS_MAX: u32 = 5;

/// A bundle in one file; also what is taken of a pipe.
pub const BUNDLE_BYTES_MAX: u64 = 1 << 40;
/// Files in one bundle.
pub const BUNDLE_ENTRIES_MAX: usize = 262_144;
/// The name of a file in a bundle.
pub const BUNDLE_KEY_BYTES_MAX: usize = 128;
/// The directory of a bundle.
pub const BUNDLE_DIRECTORY_BYTES_MAX: u64 = 64 << 20;
/// The readable manifest of a bundle.
pub const BUNDLE_INFO_BYTES_MAX: u64 = 8 << 20;
/// Sessions that the readable manifest of a bundle names, before it only counts them.
pub const BUNDLE_SESSIONS_MAX: usize = 1_000;
/// A segment of a bundle ends when it has grown past this.
pub const BUNDLE_SEGMENT_BYTES_TARGET: u64 = 64 << 20;
/// Bytes of transcripts before compression that are gathered at once for a bundle.
pub const BUNDLE_PORTION_BYTES_TARGET: u64 = 256 << 20;
/// Events of records that are gathered at once for a bundle.
pub const BUNDLE_PORTION_EVENTS_TARGET: usize = 8_192;
/// Times that what is in a bundle may grow when it is decompressed, beyond [`BUNDLE_RAW_BYTES_FREE`].
pub const BUNDLE_RAW_FACTOR_MAX: u64 = 1_000;
/// Bytes after decompression that any bundle may have.
pub const BUNDLE_RAW_BYTES_FREE: u64 = 4 << 30;
/// Memory for the directories of all segments of a bundle.
pub const BUNDLE_DIRECTORIES_BYTES_MAX: u64 = 1 << 30;
/// Conflicts of natural keys, and transcripts that differ, of which an import tells one by one.
pub const BUNDLE_CONFLICTS_MAX: usize = 1_000;
/// What an import appends in one batch rather than as segments of its own.
pub const BUNDLE_BATCH_EVENTS_MAX: usize = 8_192;
/// Events of which an import keeps what the index learns, rather than let it read them again.
pub const BUNDLE_FEED_EVENTS_MAX: u64 = 262_144;
/// What stands before the keys of a remote in a bucket.
pub const PREFIX_BYTES_MAX: usize = 512;
/// The least rate that transfers with a bucket can be limited to, in bytes a second.
pub const RATE_BYTES_MIN: u64 = 1 << 10;
/// What is said of a refusal by a bucket.
pub const REFUSAL_TEXT_BYTES_MAX: usize = 300;
/// An answer of a bucket that is no file: a list of 1,000 names takes about 300 KiB.
pub const BUCKET_ANSWER_BYTES_MAX: usize = 8 << 20;
/// Wait for the machine's own credentials, which are near or nowhere.
pub const METADATA_MICROS_MAX: u64 = 2_000_000;
/// Tries of one request to a bucket.
pub const BUCKET_TRIES_MAX: u32 = 6;
/// Times that a file is sent to a bucket that says that it took it and has it not.
pub const LOST_PUTS_MAX: u32 = 3;
/// A segment up to this length goes to a bucket in one request.
pub const PUT_BYTES_MAX: u64 = 16 << 20;
/// The parts in which a longer one goes. S3 takes at most 10,000 of at least 5 MiB.
pub const PART_BYTES: u64 = 8 << 20;
/// A small file in a bucket up to this length is read back after it was written, instead of only looked at.
pub const READ_BACK_BYTES_MAX: u64 = 64 << 10;
/// What is read at once of a file in a bucket of which a few bytes are wanted.
pub const BLOCK_BYTES: u64 = 64 << 10;
/// Such parts that are kept while the file is open.
pub const BLOCKS_KEPT_MAX: usize = 4;
/// How long what nothing refers to stays on a remote: longer than anybody pushes or pulls.
pub const GRACE_MICROS: i64 = 14 * 86_400_000_000;
/// A segment below this length is merged with others when a remote is cleared up.
pub const GC_SMALL_BYTES_MAX: u64 = 8 << 20;
/// Fewer small segments than this are left as they are.
pub const MERGED_MIN: usize = 8;
/// Segments that go to a bucket, or come from it, at once.
pub const AT_ONCE_MAX: usize = 4;

/// What redb may keep of the arrivals of a project.
pub const ARRIVALS_CACHE_BYTES: usize = 32 << 20;
/// Uploads that a token may have in one project at once.
pub const UPLOADS_OPEN_MAX: usize = 8;
/// What may be uploaded to a project and not be committed.
pub const UPLOADS_BYTES_MAX: u64 = 64 << 30;
/// Uploads that an organisation may have at once, whole ones that wait for their commit too.
pub const ORG_UPLOADS_MAX: u64 = 16_384;
/// What a request may write beside what it brings, as far as quotas count it.
pub const QUOTA_REQUEST_BYTES: u64 = 4 << 10;
/// Bytes after which what an organisation has stored is measured anew; less near small quotas.
pub const QUOTA_MEASURED_AFTER_BYTES: u64 = 64 << 20;
/// Time between two such measurements.
pub const QUOTA_MEASURED_MICROS_MIN: u64 = 1_000_000;
/// How long uploads, staged bytes and answers to commits are kept.
pub const UPLOADS_KEPT_MICROS: i64 = 86_400_000_000;
/// How often staged bytes that nobody has named are looked for.
pub const STAGED_SWEEP_MICROS: u64 = 3_600_000_000;
/// Blobs that a token may have staged.
pub const STAGED_FILES_MAX: usize = 4_096;
/// The same in bytes.
pub const STAGED_BYTES_MAX: u64 = 16 << 30;
/// Items of one upload by protocol 1.
pub const ITEMS_MAX: usize = 8_192;
/// Rows of one page by protocol 1.
pub const PAGE_ROWS_MAX: usize = 1_000;
/// Records of one upload that are compressed together.
pub const ITEMS_FRAME_BYTES_TARGET: usize = 256 << 10;
/// Bodies of one upload that are gathered before they are appended.
pub const BODIES_BYTES_TARGET: u64 = 8 << 20;
/// Events that a pull gathers into one segment, but for the last unit.
pub const PULL_EVENTS_TARGET: usize = 8_192;
/// Commits after which old answers are forgotten.
pub const SWEEP_AFTER_COMMITS: u32 = 256;
/// Hashes of bodies that are remembered as compared.
pub const COMPARED_CONTENTS_MAX: usize = 16_384;

/// A limit, or another one where a simulation has made limits small.
#[cfg(feature = "sim")]
fn unless_small<T>(usual: T, small: T) -> T {
    if agent_trace_store::switches::is_small() { small } else { usual }
}

#[cfg(not(feature = "sim"))]
fn unless_small<T>(usual: T, _: T) -> T {
    usual
}

/// `ADOPT_BYTES_MIN`.
pub fn adopt_bytes_min() -> u64 {
    unless_small(ADOPT_BYTES_MIN, 6 << 10)
}

/// `SEAL_BYTES_MIN`.
pub fn seal_bytes_min() -> u64 {
    unless_small(SEAL_BYTES_MIN, 16 << 10)
}

/// `UPLOAD_CHUNK_BYTES_MAX`, as a client sends.
pub fn upload_chunk_bytes() -> usize {
    unless_small(UPLOAD_CHUNK_BYTES_MAX, 4 << 10)
}

/// `BUNDLE_RAW_BYTES_FREE`.
pub fn bundle_raw_bytes_free() -> u64 {
    unless_small(BUNDLE_RAW_BYTES_FREE, 1 << 20)
}

/// `PULL_EVENTS_TARGET`.
pub fn pull_events_target() -> usize {
    unless_small(PULL_EVENTS_TARGET, 24)
}

/// `SYMBOLS_FIRST`.
pub fn symbols_first() -> usize {
    unless_small(SYMBOLS_FIRST, 24)
}

const _: () = assert!(ITEMS_MAX <= agent_trace_store::limits::BATCH_EVENTS_MAX);
const _: () = assert!(ERROR_BYTES_MAX <= JSON_ANSWER_BYTES_MAX);
const _: () = assert!(HEAD_BYTES_MAX > 136 * agent_trace_store::limits::WRITERS_MAX as u64);
const _: () = assert!(MANIFEST_BYTES_MAX > 72 * MANIFEST_SEGMENTS_MAX as u64 + 1024);
const _: () = assert!(
    KEYS_BYTES_MAX > (32 * KEY_EPOCHS_MAX + (KEY_MEMBER_BYTES_MAX + 4) * KEY_MEMBERS_MAX + 1024) as u64
);
const _: () = assert!(PART_BYTES <= PUT_BYTES_MAX);
const _: () = assert!(PART_BYTES >= 5 << 20);
