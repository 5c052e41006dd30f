//! Every bound of the store, with its unit last, and the relations between them (I10).
//!
//! Decoders compare what a length field says with these before they allocate. Numbers live here and nowhere else;
//! `docs/format.md` quotes them.

/// One object, chunked or not.
pub const OBJECT_BYTES_MAX: u64 = 1 << 30;
/// One chunk of a large object, and so the largest object that is stored in one piece.
pub const CHUNK_BYTES_MAX: usize = 8 << 20;
/// One JSON record in canonical form.
pub const RECORD_BYTES_MAX: usize = 8 << 20;
/// Nesting of a JSON record.
pub const JSON_DEPTH_MAX: usize = 128;
/// The natural key of a record.
pub const KEY_BYTES_MAX: usize = 1024;
/// Objects that one event lists: the record and its bodies.
pub const EVENT_OBJECTS_MAX: usize = 64;
/// One encoded event.
pub const EVENT_BYTES_MAX: usize = 4096;
/// Events in one frame.
pub const FRAME_EVENTS_MAX: usize = 1024;
/// Objects in one frame.
pub const FRAME_OBJECTS_MAX: usize = 65_536;
/// A frame after decompression.
pub const FRAME_RAW_BYTES_MAX: usize = 16 << 20;
/// A frame as stored.
pub const FRAME_STORED_BYTES_MAX: usize = FRAME_RAW_BYTES_MAX + (64 << 10);
/// The window that a decoder grants, as a power of two.
pub const WINDOW_LOG_MAX: u32 = 23;
/// Parts of one recipe.
pub const RECIPE_PARTS_MAX: usize = 262_144;
/// Recipes below a recipe: base of base of base.
pub const RECIPE_DEPTH_MAX: usize = 32;
/// A segment is sealed when it has grown past this.
pub const SEGMENT_BYTES_TARGET: u64 = 32 << 20;
/// A segment is sealed when it holds this many events.
pub const SEGMENT_EVENTS_TARGET: u32 = 24_576;
/// Frames of one batch together, after decompression.
pub const BATCH_RAW_BYTES_MAX: u64 = 256 << 20;
/// What is built in one go ends a batch after this many bytes before compression.
pub const BATCH_RAW_BYTES_TARGET: u64 = 32 << 20;
/// A segment is sealed when its events are found under this many names.
pub const SEGMENT_NAMES_TARGET: usize = 1 << 20;
/// New events of an open segment from which on it is sealed rather than indexed open.
pub const SEAL_EVENTS_MIN: usize = 4096;
/// Names under which the events of one segment are found.
pub const SEGMENT_NAMES_MAX: usize = 4 << 20;
/// Events of one batch.
pub const BATCH_EVENTS_MAX: usize = 16_384;
/// Events of one segment.
pub const SEGMENT_EVENTS_MAX: u32 = 131_072;
/// Frames of one segment.
pub const SEGMENT_FRAMES_MAX: u32 = 1 << 20;
/// A segment file, footer included.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Frames of one batch together, as stored.
pub const BATCH_BYTES_MAX: u64 = 256 << 20;
/// Segments that one store holds.
pub const SEGMENTS_MAX: usize = 65_536;
/// Writers whose logs one store holds.
pub const WRITERS_MAX: usize = 65_536;
/// Wait for a lock before giving up as unavailable.
pub const LOCK_WAIT_MICROS_MAX: u64 = 10_000_000;
/// Events that a reader looks through itself because the index has not seen them yet.
pub const UNINDEXED_EVENTS_MAX: u32 = 131_072;
/// Looks that a question takes at a store that other processes change meanwhile.
pub const QUESTION_TRIES_MAX: usize = 32;
/// Events that one row of the index covers.
pub const POSTING_EVENTS_MAX: usize = 128;
/// Memory that redb may use for pages.
pub const INDEX_CACHE_BYTES: usize = 32 << 20;
/// Decoded frames that are kept while reading.
pub const FRAME_CACHE_BYTES: usize = 24 << 20;
/// Bounds of a chunk that is cut by content: least, average, most.
pub const CHUNK_BYTES_LEAST: usize = 16 << 10;
/// See [`CHUNK_BYTES_LEAST`].
pub const CHUNK_BYTES_AVERAGE: usize = 64 << 10;
/// See [`CHUNK_BYTES_LEAST`].
pub const CHUNK_BYTES_MOST: usize = 256 << 10;
/// Chunks are compressed together up to this many bytes, so that repetitions far apart are found.
pub const CHUNK_FRAME_BYTES_TARGET: usize = 8 << 20;
/// Records are compressed together up to this many bytes, so that reading one stays cheap.
pub const RECORD_FRAME_BYTES_TARGET: usize = 256 << 10;
/// The same after compaction: reading one costs more, storing all costs less.
pub const COMPACT_FRAME_BYTES_TARGET: usize = 1 << 20;
/// What one intake gathers before it appends, before compression.
pub const INTAKE_BYTES_MAX: u64 = 8 << 20;
/// Batches that `verify` takes apart at once.
pub const VERIFY_BATCHES: usize = 8;
/// What `verify` gathers before it takes it apart, stored and raw together.
pub const VERIFY_BATCH_BYTES: u64 = 48 << 20;
/// Parts of recipes that `verify` lays out at once.
pub const VERIFY_PARTS_MAX: usize = 4 << 20;
/// Records that a problem names as affected, before it only counts them.
pub const VERIFY_AFFECTS_MAX: usize = 20;
/// Missing objects that `verify` names one by one, before it only counts them.
pub const VERIFY_MISSING_MAX: usize = 1000;
/// Objects in one note of what is elsewhere.
pub const ELSEWHERE_IDS_MAX: usize = 262_144;
/// Notes of what is elsewhere that a store keeps apart before it joins them.
pub const ELSEWHERE_FILES_TARGET: usize = 16;
/// Notes of what is elsewhere in one store.
pub const ELSEWHERE_FILES_MAX: usize = 65_536;
/// Objects that one erase record names.
pub const ERASE_OBJECTS_MAX: usize = 65_536;
/// Conversations that one erase record names.
pub const ERASE_CONVERSATIONS_MAX: usize = 512;
/// The reason that is given for an erase.
pub const ERASE_REASON_BYTES_MAX: usize = 1024;
/// Erased objects of a store.
pub const ERASED_OBJECTS_MAX: usize = 4 << 20;
/// What a store keeps back, so that something can be erased when the disk is full.
pub const RESERVE_BYTES: usize = 256 << 10;
/// Facts that are indexed of one record: paths, names it cites.
pub const RECORD_FACTS_MAX: usize = 65_536;

const _: () =
    assert!(CHUNK_BYTES_MOST <= CHUNK_BYTES_MAX && CHUNK_FRAME_BYTES_TARGET <= FRAME_RAW_BYTES_MAX / 2);
const _: () = assert!(OBJECT_BYTES_MAX / (CHUNK_BYTES_LEAST as u64) < RECIPE_PARTS_MAX as u64);
// A chunk and the largest record each fit one frame, beside the frame's own table.
const _: () = assert!(CHUNK_BYTES_MAX + 64 * FRAME_OBJECTS_MAX <= FRAME_RAW_BYTES_MAX);
const _: () = assert!(RECORD_BYTES_MAX + 64 * FRAME_OBJECTS_MAX <= FRAME_RAW_BYTES_MAX);
// A recipe of the largest object cut into its smallest pieces fits one frame.
const _: () = assert!(RECIPE_PARTS_MAX * 40 + 64 <= FRAME_RAW_BYTES_MAX);
// A frame full of the largest events fits one frame.
const _: () = assert!(FRAME_EVENTS_MAX * EVENT_BYTES_MAX <= FRAME_RAW_BYTES_MAX);
// An event with the longest key and the most objects fits its bound.
const _: () = assert!(128 + KEY_BYTES_MAX + EVENT_OBJECTS_MAX * 32 <= EVENT_BYTES_MAX);
// The directory of a segment whose events all stand alone (112 bytes a run) fits one frame, with its other tables.
const _: () = assert!(SEGMENT_EVENTS_MAX as usize * 112 + (1 << 20) <= FRAME_RAW_BYTES_MAX);
const _: () = assert!(SEGMENT_EVENTS_TARGET as usize + BATCH_EVENTS_MAX <= SEGMENT_EVENTS_MAX as usize);
// What one intake gathers, and one frame more of each sort, fits a batch.
const _: () = assert!(2 * INTAKE_BYTES_MAX + 8 * FRAME_RAW_BYTES_MAX as u64 <= BATCH_RAW_BYTES_MAX);
const _: () = assert!(BATCH_RAW_BYTES_TARGET + FRAME_RAW_BYTES_MAX as u64 <= BATCH_RAW_BYTES_MAX);
// A batch fits a segment that is not yet due for sealing.
const _: () = assert!(SEGMENT_BYTES_TARGET + BATCH_BYTES_MAX <= SEGMENT_BYTES_MAX);
// The largest erase record, each id with quotes and comma, each key with every byte escaped, is a record.
const _: () = assert!(
    ERASE_OBJECTS_MAX * 67
        + ERASE_CONVERSATIONS_MAX * (KEY_BYTES_MAX * 6 + 3)
        + ERASE_REASON_BYTES_MAX * 6
        + 256
        <= RECORD_BYTES_MAX
);
