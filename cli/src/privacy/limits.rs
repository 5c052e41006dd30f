//! Every bound of the privacy gate, with its unit last (I10).

/// Bytes that are decoded and looked through at once.
pub(crate) const PIECE_BYTES: usize = 1 << 20;
/// Bytes that a piece shares with the one before, so that a secret across the border is found.
pub(crate) const OVERLAP_BYTES: usize = 16 << 10;
/// The longest part of a piece that a rule is asked about in one go.
pub(crate) const REGION_BYTES_MAX: usize = 16 << 10;
/// What a rule sees before a keyword.
pub(crate) const BEFORE_BYTES: usize = 128;
/// What a rule sees after a keyword.
pub(crate) const AFTER_BYTES: usize = 1200;
/// The same for rules that span many lines, such as private keys.
pub(crate) const AFTER_LONG_BYTES: usize = 8 << 10;
/// The least run of base64 that is decoded, and the most of it.
pub(crate) const BASE64_CHARS_MIN: usize = 24;
/// See [`BASE64_CHARS_MIN`].
pub(crate) const BASE64_CHARS_MAX: usize = 64 << 10;
/// What is put together of a secret that stands in parts.
pub(crate) const JOINED_BYTES_MAX: usize = 2 << 10;
/// White space between two parts of a secret.
pub(crate) const JOINT_BYTES_MAX: usize = 64;
/// The part of a text with `%2F` and the like that is decoded, before and after the first of them.
pub(crate) const PERCENT_BEFORE_BYTES: usize = 512;
/// See [`PERCENT_BEFORE_BYTES`].
pub(crate) const PERCENT_AFTER_BYTES: usize = 2 << 10;
/// Different secrets that are kept of one object; more are counted.
pub(crate) const FINDINGS_MAX: usize = 1000;
/// A file of rules.
pub(crate) const RULES_BYTES_MAX: u64 = 1 << 20;
/// Rules in one file.
pub(crate) const RULES_MAX: usize = 2000;
/// A compiled regex.
pub(crate) const REGEX_BYTES_MAX: usize = 16 << 20;
/// A file that `privacy scan` reads whole; of a larger one it says so.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 30;

/// A region must hold what a rule sees round one keyword.
const _: () =
    assert!(REGION_BYTES_MAX > 8 * (BEFORE_BYTES + AFTER_BYTES) && OVERLAP_BYTES > AFTER_LONG_BYTES);
/// A file of settings.
pub(crate) const SETTINGS_BYTES_MAX: u64 = 4 << 20;
/// What is kept of scanned events; a longer file is made anew.
pub(crate) const SCANNED_BYTES_MAX: u64 = 256 << 20;
/// Bytes of a document that are gathered before they are looked through.
pub(crate) const STREAM_BYTES: usize = 4 << 20;
/// The same for one line: a longer one is looked through in parts.
pub(crate) const STREAM_LINE_BYTES: usize = 16 << 20;
/// Events whose objects are looked through in one go.
pub(crate) const PORTION_EVENTS: usize = 8192;
/// Secrets that a refusal lists.
pub(crate) const LISTED_MAX: usize = 20;
/// One line that is redacted.
pub(crate) const REDACTED_LINE_BYTES_MAX: u64 = 256 << 20;
/// How often redacted lines are looked through again, until nothing is found.
pub(crate) const REDACT_PASSES_MAX: usize = 4;
