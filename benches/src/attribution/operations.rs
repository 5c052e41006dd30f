//! The ways in which histories come about: each makes commits out of an agent's and people's edits.

use std::collections::VecDeque;

use super::edits::{Edit, Thread};
use super::human;
use super::world::World;
use crate::report::Result;

/// A file, and what the agent has still to do to it.
pub(super) struct Pen {
    pub(super) file: String,
    edits: VecDeque<Edit>,
}

impl Pen {
    pub(super) fn of(file: String, thread: &Thread) -> Pen {
        Pen { file, edits: thread.edits.iter().cloned().collect() }
    }
}

/// A repository with two files in it.
pub(super) struct Case {
    pub(super) world: World,
    pub(super) one: Pen,
    pub(super) two: Pen,
}

pub(super) type Operation = fn(&mut Case) -> Result<()>;

pub(super) const OPERATIONS: [(&str, Operation); 21] = [
    ("commit", plain),
    ("amend", amend),
    ("rebase -i, reordered", |case| rebase(case, "1{h;d};2{G}")),
    ("rebase -i, fixup", |case| rebase(case, "2s/^pick/fixup/")),
    ("rebase -i, squash", |case| rebase(case, "2s/^pick/squash/")),
    ("rebase -i, split", split),
    ("rebase --onto", onto),
    ("rebase --autosquash", autosquash),
    ("cherry-pick", cherry_pick),
    ("revert", |case| revert(case, 1)),
    ("revert of a revert", |case| revert(case, 2)),
    ("merge", merge),
    ("merge --squash", squash),
    ("merge with conflict", conflict),
    ("stash", stash),
    ("reset --soft", soft),
    ("pull --rebase", pull),
    ("filter-branch to a folder", filter),
    ("rename", rename),
    ("new file", new_file),
    ("format of all lines", reformat),
];

/// Lets agent and people edit a file by turns.
fn work(world: &mut World, pen: &mut Pen, agent: usize, people: usize) -> Result<()> {
    let mut people = people;
    for _ in 0..agent {
        while let Some(edit) = pen.edits.pop_front() {
            if world.agent(&pen.file, &edit)? {
                break;
            }
        }
        if people > 0 && world.rng.below(3) > 0 {
            human::something(world, &pen.file)?;
            people -= 1;
        }
    }
    for _ in 0..people {
        human::something(world, &pen.file)?;
    }
    Ok(())
}

fn step(case: &mut Case, agent: usize, people: usize) -> Result<()> {
    let Case { world, one, two } = case;
    let pen = if world.rng.below(3) == 0 { two } else { one };
    work(world, pen, agent, people)
}

fn plain(case: &mut Case) -> Result<()> {
    for number in 0..4 {
        step(case, 2, 2)?;
        case.world.commit(&format!("step {number}"))?;
    }
    Ok(())
}

fn amend(case: &mut Case) -> Result<()> {
    step(case, 2, 1)?;
    case.world.commit("step")?;
    for _ in 0..2 {
        step(case, 1, 1)?;
        case.world.must(&["commit", "-q", "-a", "--amend", "--no-edit"])?;
    }
    step(case, 1, 1)?;
    case.world.commit("more")
}

/// Three commits on the files by turns, and an interactive rebase by a script for its list.
fn rebase(case: &mut Case, script: &str) -> Result<()> {
    let Case { world, one, two } = case;
    for number in 0..3 {
        work(world, if number == 1 { &mut *two } else { &mut *one }, 2, 1)?;
        world.commit(&format!("part {number}"))?;
    }
    let editor = format!("sed -i -e '{script}'");
    if !world.git_with(&["rebase", "-q", "-i", "HEAD~3"], &[("GIT_SEQUENCE_EDITOR", &editor)])? {
        world.must(&["rebase", "--abort"])?;
    }
    Ok(())
}

fn split(case: &mut Case) -> Result<()> {
    let Case { world, one, two } = case;
    work(world, one, 2, 1)?;
    work(world, two, 2, 1)?;
    world.commit("both")?;
    world.must(&["reset", "-q", "HEAD^"])?;
    world.must(&["add", &one.file])?;
    world.must(&["commit", "-q", "--allow-empty", "-m", "first half"])?;
    world.commit("second half")?;
    work(world, one, 1, 1)?;
    world.commit("more")
}

/// Edits of people on the main branch, while the agent works on another.
fn meanwhile(case: &mut Case) -> Result<()> {
    case.world.must(&["checkout", "-q", "-b", "topic"])?;
    work(&mut case.world, &mut case.one, 2, 1)?;
    case.world.commit("topic 1")?;
    work(&mut case.world, &mut case.one, 2, 1)?;
    case.world.commit("topic 2")?;
    case.world.must(&["checkout", "-q", "main"])?;
    human::something(&mut case.world, &case.two.file.clone())?;
    work(&mut case.world, &mut case.two, 1, 0)?;
    case.world.commit("main")
}

fn onto(case: &mut Case) -> Result<()> {
    meanwhile(case)?;
    let world = &case.world;
    if !world.git(&["rebase", "-q", "--onto", "main", "HEAD~1", "topic"])? {
        world.must(&["rebase", "--abort"])?;
    }
    Ok(())
}

fn autosquash(case: &mut Case) -> Result<()> {
    let Case { world, one, two } = case;
    work(world, one, 2, 1)?;
    world.commit("first")?;
    work(world, two, 2, 1)?;
    world.commit("second")?;
    work(world, one, 1, 1)?;
    world.must(&["commit", "-q", "-a", "--allow-empty", "--fixup", "HEAD~1"])?;
    let variables = [("GIT_SEQUENCE_EDITOR", "true")];
    if !world.git_with(&["rebase", "-q", "-i", "--autosquash", "HEAD~3"], &variables)? {
        world.must(&["rebase", "--abort"])?;
    }
    Ok(())
}

fn cherry_pick(case: &mut Case) -> Result<()> {
    meanwhile(case)?;
    let world = &case.world;
    if !world.git(&["cherry-pick", "main..topic"])? {
        world.must(&["cherry-pick", "--abort"])?;
        return world.must(&["checkout", "-q", "topic"]);
    }
    world.must(&["branch", "-q", "-D", "topic"])
}

fn revert(case: &mut Case, times: usize) -> Result<()> {
    step(case, 2, 1)?;
    case.world.commit("kept")?;
    work(&mut case.world, &mut case.one, 2, 1)?;
    case.world.commit("undone")?;
    // Numbers of lines that come back are those that went, for they come back from the same commit.
    for _ in 0..times {
        case.world.must(&["revert", "--no-edit", "HEAD"])?;
    }
    Ok(())
}

fn merge(case: &mut Case) -> Result<()> {
    meanwhile(case)?;
    case.world.must(&["merge", "-q", "--no-ff", "--no-edit", "topic"])
}

fn squash(case: &mut Case) -> Result<()> {
    meanwhile(case)?;
    case.world.must(&["merge", "-q", "--squash", "topic"])?;
    case.world.commit("squashed")?;
    case.world.must(&["branch", "-q", "-D", "topic"])
}

/// Both sides change one place; who merges takes one side and adds something.
fn conflict(case: &mut Case) -> Result<()> {
    let Case { world, one, .. } = case;
    world.must(&["checkout", "-q", "-b", "topic"])?;
    work(world, one, 2, 1)?;
    touch_top(world, &one.file)?;
    world.commit("topic")?;
    world.must(&["checkout", "-q", "main"])?;
    touch_top(world, &one.file)?;
    world.commit("main")?;
    if world.git(&["merge", "-q", "--no-edit", "topic"])? {
        return Err("a merge without the conflict that was wanted".into());
    }
    world.must(&["checkout", "-q", "--theirs", "--", &one.file])?;
    human::something(world, &one.file)?;
    world.must(&["add", "-A"])?;
    world.must(&["commit", "-q", "--no-edit"])
}

fn touch_top(world: &mut World, file: &str) -> Result<()> {
    let mut lines = world.lines(file)?;
    let number = world.rng.next();
    lines[0] = world.typed(format!("// top {number}"));
    world.write(file, &lines)
}

fn stash(case: &mut Case) -> Result<()> {
    let Case { world, one, two } = case;
    work(world, one, 2, 1)?;
    world.must(&["stash", "-q"])?;
    human::something(world, &two.file)?;
    world.commit("meanwhile")?;
    world.must(&["stash", "pop", "-q"])?;
    world.commit("from the stash")
}

fn soft(case: &mut Case) -> Result<()> {
    for number in 0..3 {
        step(case, 2, 1)?;
        case.world.commit(&format!("part {number}"))?;
    }
    case.world.must(&["reset", "-q", "--soft", "HEAD~3"])?;
    case.world.commit("one")
}

fn pull(case: &mut Case) -> Result<()> {
    for directory in case.world.places() {
        let bare = directory.with_extension("git");
        let path = bare.display().to_string();
        let mut clone = case.world.command("git", &directory);
        clone.args(["clone", "-q", "--bare", ".", &path]).output()?;
        case.world.command("git", &directory).args(["remote", "add", "origin", &path]).output()?;
    }
    let Case { world, one, two } = case;
    world.must(&["checkout", "-q", "-b", "other"])?;
    human::something(world, &two.file)?;
    world.commit("somebody else's")?;
    world.must(&["push", "-q", "origin", "other:main"])?;
    world.must(&["checkout", "-q", "main"])?;
    world.must(&["branch", "-q", "-D", "other"])?;
    work(world, one, 2, 1)?;
    world.commit("ours")?;
    work(world, one, 1, 1)?;
    world.commit("ours too")?;
    world.must(&["pull", "-q", "--rebase", "origin", "main"])
}

fn filter(case: &mut Case) -> Result<()> {
    plain(case)?;
    let script = "git ls-files -s | sed 's-\t\"*-&moved/-' | GIT_INDEX_FILE=$GIT_INDEX_FILE.new git update-index --index-info \
                  && mv \"$GIT_INDEX_FILE.new\" \"$GIT_INDEX_FILE\" || true";
    case.world.must(&["filter-branch", "-f", "--index-filter", script, "--", "main"])?;
    case.world.must(&["reset", "-q", "--hard"])
}

fn rename(case: &mut Case) -> Result<()> {
    step(case, 2, 1)?;
    case.world.commit("before")?;
    let Case { world, one, .. } = case;
    let new = format!("other/renamed_{}", one.file.rsplit('/').next().unwrap_or("file"));
    for directory in world.places() {
        std::fs::create_dir_all(directory.join("other"))?;
    }
    // An edit before the move and one after it, in one commit.
    work(world, one, 1, 0)?;
    world.must(&["mv", &one.file, &new])?;
    one.file = new;
    work(world, one, 1, 1)?;
    world.commit("moved")?;
    work(world, one, 1, 1)?;
    world.commit("after")
}

/// The agent writes a file anew; people edit it before it is committed.
fn new_file(case: &mut Case) -> Result<()> {
    let Case { world, one, .. } = case;
    let content = super::world::join(&world.lines(&one.file)?);
    let file = "pkg/written.go".to_owned();
    world.agent(&file, &Edit::Write(content))?;
    for _ in 0..3 {
        human::something(world, &file)?;
    }
    world.commit("written")?;
    one.file = file;
    work(world, one, 3, 2)?;
    world.commit("edited")
}

/// A formatter goes over a whole file.
fn reformat(case: &mut Case) -> Result<()> {
    step(case, 3, 1)?;
    case.world.commit("before")?;
    let Case { world, one, .. } = case;
    work(world, one, 1, 0)?;
    let mut lines = world.lines(&one.file)?;
    for line in lines.iter_mut().filter(|line| line.text.starts_with('\t')) {
        let depth = line.text.len() - line.text.trim_start_matches('\t').len();
        line.text = format!("{}{}", "    ".repeat(depth), &line.text[depth..]);
    }
    world.write(&one.file, &lines)?;
    world.commit("formatted")
}
