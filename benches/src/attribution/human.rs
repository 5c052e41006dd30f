//! What people do to files between an agent's edits.

use super::world::{Line, World};
use crate::report::Result;

/// Lines that everybody types.
const COMMON: [&str; 8] =
    ["}", "\treturn nil", "\tif err != nil {", "\t\treturn err", "\t}", "", "\t\tcontinue", "\treturn err"];

/// Does one thing or another to a file.
pub(super) fn something(world: &mut World, file: &str) -> Result<()> {
    let mut lines = world.lines(file)?;
    if lines.len() < 8 {
        return Ok(());
    }
    match world.rng.below(9) {
        0 => retype(world, &mut lines, false),
        1 => retype(world, &mut lines, true),
        2 => function(world, &mut lines),
        3 => {
            let at = place(world, &lines);
            let line = world.typed("");
            lines.insert(at, line);
        }
        4 => move_block(world, &mut lines),
        5 => indent(world, &mut lines),
        6 => {
            let (start, length) = block(world, &lines, 5);
            lines.drain(start..start + length);
        }
        7 => copy(world, &mut lines),
        _ => {
            let text = COMMON[world.pick(COMMON.len())];
            let at = place(world, &lines);
            let line = world.typed(text);
            lines.insert(at, line);
        }
    }
    world.write(file, &lines)
}

fn place(world: &mut World, lines: &[Line]) -> usize {
    world.pick(lines.len())
}

fn block(world: &mut World, lines: &[Line], most: usize) -> (usize, usize) {
    let length = (1 + world.pick(most)).min(lines.len() / 2);
    (world.pick(lines.len() - length), length)
}

/// Changes the words of a line, one of the agent's if there is one and it is wanted.
fn retype(world: &mut World, lines: &mut [Line], of_agent: bool) {
    let told = |line: &&mut Line| line.text.chars().filter(|letter| letter.is_alphanumeric()).count() > 3;
    let wanted: Vec<usize> =
        (0..lines.len()).filter(|at| !of_agent || world.is_agents(&lines[*at])).collect();
    let Some(at) = wanted.get(world.pick(wanted.len())).copied() else { return };
    let Some(line) = lines.get_mut(at).filter(|line| told(line)) else { return };
    let number = world.rng.below(1000);
    let text = match world.rng.below(3) {
        0 => format!("{} // see {number}", line.text),
        1 => line.text.replacen(' ', &format!(" x{number} "), 1),
        _ => format!("{}my{number}()", &line.text[..line.text.len() - line.text.trim_start().len()]),
    };
    *line = world.typed(text);
}

/// Types a function between two others.
fn function(world: &mut World, lines: &mut Vec<Line>) {
    let number = world.rng.below(100_000);
    let texts = [
        String::new(),
        format!("func own{number}(path string) error {{"),
        format!("\tvalue{number}, err := load(path)"),
        "\tif err != nil {".to_owned(),
        "\t\treturn err".to_owned(),
        "\t}".to_owned(),
        format!("\tuse(value{number})"),
        "\treturn nil".to_owned(),
        "}".to_owned(),
    ];
    let ends: Vec<usize> = (0..lines.len()).filter(|at| lines[*at].text == "}").map(|at| at + 1).collect();
    let at = match ends.get(world.pick(ends.len())) {
        Some(at) => *at,
        None => place(world, lines),
    };
    let typed: Vec<Line> = texts.into_iter().map(|text| world.typed(text)).collect();
    lines.splice(at..at, typed);
}

/// Moves lines that say something.
fn move_block(world: &mut World, lines: &mut Vec<Line>) {
    let (start, length) = block(world, lines, 10);
    if length < 3 {
        return;
    }
    let moved: Vec<Line> = lines.drain(start..start + length).collect();
    let at = place(world, lines);
    lines.splice(at..at, moved);
}

fn indent(world: &mut World, lines: &mut [Line]) {
    let (start, length) = block(world, lines, 10);
    for line in lines[start..start + length].iter_mut().filter(|line| !line.text.is_empty()) {
        line.text.insert(0, '\t');
    }
}

/// Copies lines, common ones mostly.
fn copy(world: &mut World, lines: &mut Vec<Line>) {
    let common: Vec<usize> =
        (0..lines.len()).filter(|at| COMMON.contains(&lines[*at].text.as_str())).collect();
    let (start, length) = match common.get(world.pick(common.len())) {
        Some(at) if world.rng.below(4) > 0 => (*at, 1),
        _ => block(world, lines, 6),
    };
    let texts: Vec<String> = lines[start..start + length].iter().map(|line| line.text.clone()).collect();
    let copied: Vec<Line> = texts.into_iter().map(|text| world.typed(text)).collect();
    let at = place(world, lines);
    lines.splice(at..at, copied);
}
