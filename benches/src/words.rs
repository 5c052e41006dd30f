//! Seeded randomness and a word model: everything the generator draws comes from here, so one seed gives one output.
//!
//! The prose has the statistics that matter to a compressor (a skewed vocabulary, sentences, code names, an escape
//! now and then); it does not mean anything. Not for cryptography.

use std::fmt::Write as _;

const COMMON: &str = "the to of and a in is it that for this with on be as are was have not you can from or by an at we \
    will if all which there when so one would what up out some them into then now only its also after two more how \
    test file function error value return type line check code change update build run fix add remove read write store \
    path name list index query commit branch merge config option default parser token cache request response handler \
    server client import export module struct field method call result string number first last next before while \
    because should need make sure instead already still both each passes fails expected found missing";

const SYLLABLES: [&str; 40] = [
    "ac", "ber", "cal", "con", "der", "dis", "en", "er", "fer", "form", "gen", "in", "ing", "lo", "man",
    "mat", "mod", "nal", "net", "or", "per", "play", "pre", "pro", "re", "sa", "sec", "ser", "sis", "sta",
    "sub", "sync", "tem", "ter", "tion", "trans", "un", "ver", "view", "wor",
];

/// SplitMix64: small, fast, and good enough for made-up data.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed ^ 0x6a09_e667_f3bc_c908)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in `0..bound`; 0 where the bound is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// Uniform in `low..=high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// In `0..bound`, small values far more often: a sixth of all draws falls into the first hundredth.
    pub(crate) fn skewed(&mut self, bound: u64) -> u64 {
        let outer = self.below(bound);
        let middle = self.below(outer + 1);
        self.below(middle + 1)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let drawn = self.below(items.len() as u64);
        &items[usize::try_from(drawn).expect("smaller than a length")]
    }

    pub(crate) fn pick_skewed<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let drawn = self.skewed(items.len() as u64);
        &items[usize::try_from(drawn).expect("smaller than a length")]
    }

    /// Appends random hex digits.
    pub(crate) fn hex(&mut self, out: &mut String, digits: usize) {
        let end = out.len() + digits;
        while out.len() < end {
            let _ = write!(out, "{:016x}", self.next());
        }
        out.truncate(end);
    }

    pub(crate) fn hex_string(&mut self, digits: usize) -> String {
        let mut out = String::with_capacity(digits + 16);
        self.hex(&mut out, digits);
        out
    }

    /// A random UUID of version 4.
    pub(crate) fn uuid(&mut self) -> String {
        let digits = self.hex_string(32);
        let variant = *self.pick(&['8', '9', 'a', 'b']);
        format!(
            "{}-{}-4{}-{variant}{}-{}",
            &digits[..8],
            &digits[8..12],
            &digits[13..16],
            &digits[17..20],
            &digits[20..]
        )
    }

    /// Appends characters of the kind that tool-use ids are made of.
    pub(crate) fn base62(&mut self, out: &mut String, length: usize) {
        const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        for _ in 0..length {
            out.push(char::from(*self.pick(DIGITS)));
        }
    }
}

/// A vocabulary with a skewed distribution.
pub(crate) struct Words(Vec<String>);

impl Words {
    pub(crate) fn new(rng: &mut Rng, count: usize) -> Words {
        let mut words: Vec<String> = COMMON.split_whitespace().map(String::from).collect();
        while words.len() < count {
            let syllables = rng.between(2, 3);
            words.push((0..syllables).map(|_| *rng.pick(&SYLLABLES)).collect());
        }
        Words(words)
    }

    pub(crate) fn word(&self, rng: &mut Rng) -> &str {
        let word: &String = rng.pick_skewed(&self.0);
        word
    }

    /// A word from the whole vocabulary, evenly.
    pub(crate) fn rare(&self, rng: &mut Rng) -> &str {
        let word: &String = rng.pick(&self.0);
        word
    }

    /// Appends about `length` characters of prose, escaped as Python's `json.dumps` escapes it.
    pub(crate) fn prose(&self, rng: &mut Rng, out: &mut String, length: usize) {
        let end = out.len() + length;
        while out.len() < end {
            for place in 0..rng.between(5, 18) {
                match rng.below(40) {
                    0 => {
                        let _ = write!(out, "`{}_{}` ", self.word(rng), self.rare(rng));
                    }
                    1 => {
                        let _ = write!(out, "it\\u2019s {} ", self.rare(rng));
                    }
                    2 => {
                        let _ = write!(out, "{} \\u2014 ", rng.below(2_000));
                    }
                    3..6 => {
                        let _ = write!(out, "{} ", self.rare(rng));
                    }
                    _ if place == 0 => {
                        let word = self.word(rng);
                        out.push_str(&word[..1].to_ascii_uppercase());
                        out.push_str(&word[1..]);
                        out.push(' ');
                    }
                    _ => {
                        out.push_str(self.word(rng));
                        out.push(' ');
                    }
                }
            }
            out.pop();
            out.push_str(if rng.chance(20) { ".\\n\\n" } else { ". " });
        }
    }

    /// A line of code, escaped.
    pub(crate) fn code(&self, rng: &mut Rng) -> String {
        let indent = *rng.pick(&["", "    ", "    ", "        ", "\\t"]);
        let (one, two, three) = (self.word(rng), self.rare(rng), self.word(rng));
        match rng.below(5) {
            0 => format!("{indent}let {one}_{two} = {three}({});", rng.below(100)),
            1 => format!("{indent}if {one}.{two}() != \\\"{three}\\\" {{"),
            2 => format!("{indent}return {one}.{three}({two})"),
            3 => format!("{indent}// {one} {three} {two}"),
            _ => format!("{indent}def {three}_{two}({one}):"),
        }
    }
}
