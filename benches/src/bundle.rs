//! Bundles of real transcripts: export and import against `restic backup` and `restore`, and `tar | zstd`.
//!
//! Ours starts from a store that holds the transcripts and ends in one; the others start from the files and end in files.

use std::path::Path;
use std::process::Command;

use crate::Options;
use crate::corpus;
use crate::files;
use crate::measure::{self, Job};
use crate::ours::Ours;
use crate::peers;
use crate::report::{Report, Result, megabytes_number, named, ratio};

/// Measures export and import of real transcripts.
pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    report.heading("Bundles");
    let Some(given) = &options.corpus else {
        report.text("skipped: corpus not given");
        return Ok(());
    };
    let given = given.join("entire-cli");
    let data = if options.quick { corpus::first_snapshots(&given, &options.work)? } else { given };
    files::warm(&data)?;
    let work = files::renew(&options.work.join("bundle"))?;
    let (fresh, small) =
        (Ours::new(options.binary()?, &work, "fresh"), Ours::new(options.binary()?, &work, "small"));
    fresh.fill(&data)?;
    small.fill(&data)?;
    small.run(&["compact", "--yes"])?;
    let restic = peers::present(report, &work, &data).into_iter().find(|peer| peer.name == "restic");
    let mut jobs = vec![
        export(&fresh, "export", &work.join("fresh.atb")),
        export(&small, "export, compacted", &work.join("small.atb")),
        import(&fresh.other("taken"), "import", &work.join("fresh.atb")),
        import(&fresh.other("taken-small"), "import, compacted", &work.join("small.atb")),
        pack(&data, &work.join("all.tar.zst")),
        unpack(&work.join("all.tar.zst"), &work.join("unpacked")),
    ];
    if let Some(restic) = &restic {
        jobs.push(restic.first());
        jobs.push(restic.restore(&work.join("restored")));
    }
    let all = measure::alternate(&mut jobs, options.runs(), &work);
    report.table(&all);
    files::remove(&work)?;
    let megabytes = |name: &str| named(&all, name).bytes_median().map_or(f64::NAN, megabytes_number);
    report.at_most("MB of a bundle", megabytes("export"), 46.0);
    report.at_most("MB of a bundle of a compacted store", megabytes("export, compacted"), 36.0);
    if restic.is_some() {
        let wall = |name: &str| named(&all, name).wall().median;
        report.at_most("wall of export / of restic backup", ratio(wall("export"), wall("restic")), 1.0);
        report.at_most(
            "wall of import / of restic restore",
            ratio(wall("import"), wall("restic, restore")),
            1.0,
        );
    }
    Ok(())
}

fn export(ours: &Ours, name: &str, bundle: &Path) -> Job<'static> {
    let (ours, bundle, after) = (ours.clone(), bundle.to_owned(), bundle.to_owned());
    Job::new(name, move |_| {
        let mut command = ours.command(["export"]);
        command.arg(&bundle);
        Ok(vec![command])
    })
    .bytes(move |_| files::bytes_below(&after))
}

fn import(ours: &Ours, name: &str, bundle: &Path) -> Job<'static> {
    let (before, now, after, bundle) = (ours.clone(), ours.clone(), ours.clone(), bundle.to_owned());
    Job::new(name, move |_| Ok(vec![now.import(&bundle, &[])]))
        .prepare(move |_| before.init())
        .bytes(move |_| files::bytes_below(&after.store))
}

/// `tar | zstd -3`, on as many threads as zstd likes.
fn pack(data: &Path, archive: &Path) -> Job<'static> {
    let (data, archive, after) = (data.to_owned(), archive.to_owned(), archive.to_owned());
    Job::new("tar | zstd", move |_| {
        let mut command = Command::new("sh");
        command.args(["-c", "tar -C \"$1\" -cf - . | zstd -q -3 -T0 -f -o \"$2\" && sync \"$2\"", "sh"]);
        command.arg(&data).arg(&archive);
        Ok(vec![command])
    })
    .bytes(move |_| files::bytes_below(&after))
}

fn unpack(archive: &Path, target: &Path) -> Job<'static> {
    let (archive, target, before) = (archive.to_owned(), target.to_owned(), target.to_owned());
    Job::new("zstd | tar", move |_| {
        let mut command = Command::new("sh");
        command.args(["-c", "zstd -q -d -c \"$1\" | tar -C \"$2\" -xf -", "sh"]).arg(&archive).arg(&target);
        Ok(vec![command])
    })
    .prepare(move |_| files::renew(&before).map(drop))
}
