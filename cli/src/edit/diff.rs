//! Differences of two lists of lines, placed as people would place them.

use std::ops::Range;

use imara_diff::{Algorithm, Diff, IndentHeuristic, InternedInput};

use super::line::Line;

/// A place where the lists differ: these lines give way to those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Lines of the first list.
    pub(crate) before: Range<usize>,
    /// Lines of the second.
    pub(crate) after: Range<usize>,
}

/// How lines are paired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As `git diff` and `git blame` pair them.
    Git,
    /// By lines that are rare, so that what belongs together stays together.
    Rare,
}

/// Where two lists of lines differ, in order; what lies between is the same in both.
pub(crate) fn changes(before: &[Line], after: &[Line], manner: Manner) -> Vec<Change> {
    let mut input: InternedInput<u64> = InternedInput::default();
    input.update_before(before.iter().map(|line| line.strict));
    input.update_after(after.iter().map(|line| line.strict));
    let algorithm = match manner {
        Manner::Git => Algorithm::Myers,
        Manner::Rare => Algorithm::Histogram,
    };
    let mut diff = Diff::compute(algorithm, &input);
    // Of one token every line has the same indent, if it is known at all.
    let mut indents = vec![Line::of_hashes(0, 0).indent; input.interner.num_tokens() as usize];
    for (token, line) in input.before.iter().zip(before).chain(input.after.iter().zip(after)) {
        indents[token.0 as usize] = line.indent;
    }
    let heuristic = IndentHeuristic::new(|token: imara_diff::Token| indents[token.0 as usize]);
    diff.postprocess_with_heuristic(&input, heuristic);
    let wide = |range: Range<u32>| range.start as usize..range.end as usize;
    diff.hunks().map(|hunk| Change { before: wide(hunk.before), after: wide(hunk.after) }).collect()
}

/// For each line of the second list the line of the first that it is the same as.
pub(crate) fn pairs(changes: &[Change], before: usize, after: usize) -> Vec<Option<usize>> {
    let mut pairs = vec![None; after];
    let (mut old, mut new) = (0, 0);
    let end = Change { before: before..before, after: after..after };
    for change in changes.iter().chain([&end]) {
        while new < change.after.start {
            pairs[new] = Some(old);
            (old, new) = (old + 1, new + 1);
        }
        (old, new) = (change.before.end, change.after.end);
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::super::line::lines;
    use super::*;

    fn check(before: &str, after: &str, expected: &[Option<usize>]) {
        let (before, after) = (lines(before.as_bytes()), lines(after.as_bytes()));
        for manner in [Manner::Git, Manner::Rare] {
            let changes = changes(&before, &after, manner);
            assert_eq!(pairs(&changes, before.len(), after.len()), expected, "{manner:?}");
        }
    }

    #[test]
    fn unchanged_lines_are_paired_in_order() {
        check("", "", &[]);
        check("a\nb\n", "a\nb\n", &[Some(0), Some(1)]);
        check("a\nb\nc\n", "a\nx\nc\ny\n", &[Some(0), None, Some(2), None]);
        check("a\nb\n", "b\n", &[Some(1)]);
        check("", "a\n", &[None]);
    }

    #[test]
    fn a_new_function_has_its_own_brace() {
        let before = "fn a() {\n    one();\n}\n";
        let after = "fn a() {\n    one();\n}\n\nfn b() {\n    two();\n}\n";
        check(before, after, &[Some(0), Some(1), Some(2), None, None, None, None]);
    }
}
