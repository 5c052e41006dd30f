//! The rules, one by one, on small files. `A` to the right of a line of the expected file marks it as the agent's.

use std::path::PathBuf;

use super::*;
use crate::edit::line::lines;
use crate::edit::trace::FileEdit;
use crate::edit::{Change, Replacement, ToolEdit, resolve};

/// One edit of an agent: a text of the file that gives way to another; without one, all of the file is written.
fn edit(before: &str, old: &str, new: &str) -> FileEdit {
    let change = if old.is_empty() {
        Change::Write(new.into())
    } else {
        Change::Replace(vec![Replacement { old: old.into(), new: new.into(), all: false }])
    };
    let tool = ToolEdit { path: PathBuf::from("f"), change, before: Some(before.into()), after: None };
    let resolved = resolve(&tool);
    FileEdit { path: "f".into(), hunks: resolved.hunks, is_whole: resolved.is_whole, ..FileEdit::default() }
}

/// `expected` is the commit's file; lines that end in ` //A` are the agent's, the mark is no part of the line.
fn check(parent: &str, edits: &[FileEdit], expected: &str) {
    check_with(parent, edits, expected, &mut |lines| vec![None; lines.len()]);
}

fn check_with(parent: &str, edits: &[FileEdit], expected: &str, priors: &mut Priors<'_>) {
    let after: String =
        expected.lines().map(|line| format!("{}\n", line.strip_suffix(" //A").unwrap_or(line))).collect();
    let (file, parents) = (lines(after.as_bytes()), [lines(parent.as_bytes())]);
    let added = added(&file, &parents);
    let edits = edits.iter().enumerate().collect();
    let change = FileChange { after: &file, parents: &parents, added: &added, edits };
    let authors = attribute(&[change], priors).remove(0);
    let found: String = after
        .lines()
        .zip(&authors)
        .map(|(line, by)| format!("{line}{}\n", if by.is_some() { " //A" } else { "" }))
        .collect();
    let expected: String = expected.lines().map(|line| format!("{line}\n")).collect();
    assert_eq!(found, expected, "\n--- found\n{found}\n--- expected\n{expected}");
}

const BASE: &str = "fn one() {\n    first();\n}\n\nfn two() {\n    second();\n}\n";

#[test]
fn what_an_agent_writes_is_its_own() {
    check("", &[edit("", "", "a b c\n\n}\n")], "a b c //A\n //A\n} //A\n");
    check(
        BASE,
        &[edit(BASE, "    first();\n", "    first();\n    more();\n")],
        "fn one() {\n    first();\n    more(); //A\n}\n\nfn two() {\n    second();\n}\n",
    );
}

#[test]
fn what_a_human_adds_beside_it_is_not() {
    let new = "fn mid() {\n    agent_work();\n}\n\n";
    check(
        BASE,
        &[edit(BASE, "fn two() {", &format!("{new}fn two() {{"))],
        "fn one() {\n    first();\n}\n\nfn mid() { //A\n    agent_work(); //A\n} //A\n //A\nfn two() {\n    second();\n}\n\nfn three() {\n    third();\n}\n",
    );
}

#[test]
fn an_empty_line_that_a_human_types_into_it_is_not() {
    let edits = [edit("", "", "fn a() {\n    one_thing();\n    other_thing();\n}\n")];
    check("", &edits, "fn a() { //A\n    one_thing(); //A\n\n    other_thing(); //A\n} //A\n");
}

#[test]
fn a_line_that_a_human_changes_is_the_human_s() {
    let edits = [edit("", "", "alpha one\nbeta two\ngamma three\n")];
    check("", &edits, "alpha one //A\nbeta 2\ngamma three //A\n");
}

#[test]
fn common_lines_of_a_human_s_own_function_are_not_the_agent_s() {
    let edits = [edit("", "", "fn a() {\n    if err {\n        return 1;\n    }\n}\n")];
    check(
        "",
        &edits,
        "fn a() { //A\n    if err { //A\n        return 1; //A\n    } //A\n} //A\n\nfn b() {\n    if err {\n        return 2;\n    }\n}\n",
    );
}

#[test]
fn a_later_edit_takes_over_what_it_changes() {
    let first = "fn a() {\n    x = 1;\n}\n";
    let edits = [edit("", "", first), edit(first, "x = 1", "x = 2")];
    let (file, parents) = (lines(b"fn a() {\n    x = 2;\n}\n"), [Vec::new()]);
    let added = added(&file, &parents);
    let edits = edits.iter().enumerate().collect();
    let change = FileChange { after: &file, parents: &parents, added: &added, edits };
    let authors = attribute(&[change], &mut |lines| vec![None; lines.len()]).remove(0);
    let sources: Vec<Option<usize>> = authors.iter().map(|by| by.map(|by| by.source)).collect();
    assert_eq!(sources, [Some(0), Some(1), Some(0)]);
}

#[test]
fn a_block_that_is_indented_anew_stays() {
    let edits = [edit(BASE, "    first();\n", "    alpha_call();\n    beta_call();\n")];
    check(
        BASE,
        &edits,
        "fn one() {\n    if x {\n        alpha_call(); //A\n        beta_call(); //A\n    }\n}\n\nfn two() {\n    second();\n}\n",
    );
}

#[test]
fn a_block_that_is_moved_stays() {
    let new = "fn moved_along() {\n    some_telling_work();\n    more_of_that_work();\n}\n\n";
    let edits = [edit(BASE, "fn one() {", &format!("{new}fn one() {{"))];
    check(
        BASE,
        &edits,
        "fn one() {\n    first();\n}\n\nfn two() {\n    second();\n}\n\nfn moved_along() { //A\n    some_telling_work(); //A\n    more_of_that_work(); //A\n} //A\n",
    );
}

#[test]
fn a_copy_is_nobody_s() {
    let file = "fn agent_made() {\n    some_telling_work();\n    more_of_that_work();\n}\n";
    check(
        file,
        &[edit("", "", file)],
        "fn agent_made() {\n    some_telling_work();\n    more_of_that_work();\n}\n\nfn agent_made_2() {\n    some_telling_work();\n    more_of_that_work();\n}\n",
    );
}

#[test]
fn a_line_that_the_parent_has_already_is_not_counted_again() {
    let file = "alpha one\nbeta two\n";
    check(file, &[edit("", "", file)], "alpha one\nbeta two\nhuman three\n");
}

#[test]
fn a_human_s_lines_above_do_not_lead_astray() {
    let edits = [edit(BASE, "    second();\n", "    second();\n    agent_line();\n")];
    check(
        BASE,
        &edits,
        "// by hand\n// more by hand\nfn one() {\n    first();\n}\n\nfn two() {\n    second();\n    agent_line(); //A\n}\n",
    );
}

#[test]
fn authors_of_moved_lines_of_the_parent_are_asked_for() {
    let parent = "fn by_agent() {\n    telling_work_one();\n    telling_work_two();\n}\nfn rest() {\n    r1();\n    r2();\n    r3();\n    r4();\n}\n";
    let mut asked = Vec::new();
    check_with(
        parent,
        &[],
        "fn rest() {\n    r1();\n    r2();\n    r3();\n    r4();\n}\nfn by_agent() { //A\n    telling_work_one(); //A\n    telling_work_two(); //A\n} //A\n",
        &mut |lines| {
            asked.extend_from_slice(lines);
            vec![Some(0); lines.len()]
        },
    );
    assert_eq!(asked.len(), 4);
}

#[test]
fn a_whole_file_written_anew_keeps_what_it_repeats() {
    let whole = {
        let tool = ToolEdit {
            path: PathBuf::from("f"),
            change: Change::Write(b"one\ntwo\nthree new\n".to_vec()),
            before: None,
            after: None,
        };
        let resolved = resolve(&tool);
        FileEdit {
            path: "f".into(),
            hunks: resolved.hunks,
            is_whole: resolved.is_whole,
            ..FileEdit::default()
        }
    };
    check("one\ntwo\n", &[whole], "one\ntwo\nthree new //A\n");
}
