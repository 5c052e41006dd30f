//! Every bound of capture, with its unit last (I10); `docs/capture.md` quotes them.

/// One hook payload; what is longer is cut off and marked.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 16 << 20;
/// The bytes of an edited file that go into an entry; of a longer one its size and hash.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 20;
/// A file up to this length is hashed where its bytes are too many; of a longer one only the size is kept.
pub(crate) const FILE_HASHED_BYTES_MAX: u64 = 4 << 20;
/// Files of one entry; a patch may name more, which are then known by the patch alone.
pub(crate) const FILES_MAX: usize = 16;
/// New bytes of a transcript that one entry takes; the flusher takes the rest.
pub(crate) const TAIL_BYTES_MAX: u64 = 1 << 20;
/// Transcripts of one entry: the session's and a sub-agent's.
pub(crate) const TAILS_MAX: usize = 2;
/// Bytes before a tail by which it is told that the file is still the same.
pub(crate) const CHECK_BYTES: u64 = 4096;
/// One path.
pub(crate) const PATH_BYTES_MAX: usize = 4096;
/// A name of a hook, an agent, an argument, a branch.
pub(crate) const NAME_BYTES_MAX: usize = 1024;
/// Git repositories in which one event edits files.
pub(crate) const PROJECTS_MAX: usize = 4;
/// One entry.
pub(crate) const ENTRY_BYTES_MAX: u64 = 40 << 20;
/// Entries that one batch absorbs, and their bytes; the first may be longer.
pub(crate) const BATCH_ENTRIES_MAX: usize = 256;
/// See [`BATCH_ENTRIES_MAX`].
pub(crate) const BATCH_BYTES_MAX: u64 = 48 << 20;
/// Entries that could not be understood, and their bytes; beyond this the oldest go, and are counted.
pub(crate) const ODD_ENTRIES_MAX: usize = 256;
/// See [`ODD_ENTRIES_MAX`].
pub(crate) const ODD_BYTES_MAX: u64 = 128 << 20;
/// Slots of the file of failures; a new failure takes the place of the oldest.
pub(crate) const FAILURES_MAX: usize = 32;
/// One slot of the file of failures.
pub(crate) const FAILURE_BYTES: usize = 256;
/// A settings file that a hook reads.
pub(crate) const SETTINGS_BYTES_MAX: u64 = 256 << 10;
/// Directories from a file up to the root of the file system.
pub(crate) const PARENTS_MAX: usize = 256;
/// A symbolic ref that names a symbolic ref, and so on.
pub(crate) const REF_DEPTH_MAX: usize = 5;
/// `packed-refs` that is not sorted, and so must be read whole.
pub(crate) const PACKED_REFS_BYTES_MAX: u64 = 4 << 20;
/// How long a hook waits for a payload on which nobody writes any more.
pub(crate) const STDIN_WAIT_MILLIS_MAX: i64 = 2_000;
/// What a flusher waits before it absorbs, so that events of one moment make one snapshot.
pub(crate) const GATHER_MICROS: u64 = 1_000_000;
/// How long a flusher stays without anything to do.
pub(crate) const LINGER_MICROS: u64 = 4_000_000;
/// How often a flusher looks at the spool.
pub(crate) const LOOK_MICROS: u64 = 250_000;
/// How long a flusher that has failed keeps others from trying again.
pub(crate) const BACKOFF_MICROS: u64 = 20_000_000;
/// What a command spends on absorbing before it answers from what is there.
pub(crate) const ABSORB_MICROS_MAX: u64 = 3_000_000;
/// Hooks of git whose commits a command links before it answers.
pub(crate) const COMMITS_MAX: usize = 64;
/// How long the flusher waits for notes to be sent.
pub(crate) const PUSH_MICROS_MAX: u64 = 120_000_000;
/// How long a command waits for somebody else who absorbs.
pub(crate) const ABSORB_WAIT_MICROS_MAX: u64 = 2_000_000;
/// How long what a file held before a tool call waits for the end of the call.
pub(crate) const BEFORE_MICROS_MAX: i64 = 3_600_000_000;
/// What was written aside and is older than this was left by a process that died.
pub(crate) const LEFTOVER_MICROS_MIN: i64 = 600_000_000;
/// How long the offset of a transcript is remembered that no event names any more.
pub(crate) const TAIL_MICROS_MAX: i64 = 30 * 86_400_000_000;
/// Sessions whose next edit number is remembered; others are counted again.
pub(crate) const SESSIONS_MAX: usize = 512;
/// The end of a transcript in which the line of a tool call is looked for.
pub(crate) const LOOK_BACK_BYTES_MAX: u64 = 1 << 20;
/// Files of one session that replaced each other without one continuing the other.
pub(crate) const REPLACED_MAX: usize = 64;

// A payload, all files and both tails fit one entry.
const _: () = assert!(
    PAYLOAD_BYTES_MAX as u64
        + FILES_MAX as u64 * (FILE_BYTES_MAX + 2 * PATH_BYTES_MAX as u64)
        + TAILS_MAX as u64 * (TAIL_BYTES_MAX + 2 * PATH_BYTES_MAX as u64)
        + 64 * 1024
        <= ENTRY_BYTES_MAX
);
/// How long the flusher looks for secrets in what was never looked through, before it leaves the rest to the next.
pub(crate) const MARK_MICROS_MAX: u64 = 60_000_000;
