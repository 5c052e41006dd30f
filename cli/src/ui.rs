//! The only place that prints: stdout is the answer, stderr the conversation.
//!
//! Knows whether it talks to a terminal or to a program. What comes from elsewhere is sanitised by whoever prints
//! it; errors are sanitised here. A reader that closes stdout ends the program well.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::io::{self, BufRead, BufWriter, IsTerminal, Read, Write};
use std::rc::Rc;
use std::sync::Mutex;

use agent_trace_store::progress::{Progress, Silent};
use agent_trace_store::{Error, Result};
use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::args::{Color, Global};
use crate::pager::Pager;
use crate::sanitize;
use crate::settings;

const STDOUT_BUFFER_BYTES: usize = 64 << 10;
const STDIN_BUFFER_BYTES: usize = 1 << 20;
const FAINT: Style = Style::new().dimmed();
const STRONG: Style = Style::new().bold();
const NAME: Style = AnsiColor::Yellow.on_default();
const AGENT: Style = AnsiColor::Green.on_default();
const WARN: Style = AnsiColor::Yellow.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();

/// Prints; copies print to the same place.
#[derive(Clone)]
pub(crate) struct Ui {
    out: Rc<RefCell<Box<dyn Write>>>,
    closed: Rc<Cell<bool>>,
    captured: Option<Rc<RefCell<Vec<u8>>>>,
    color_out: bool,
    color_error: bool,
    out_is_terminal: bool,
    json: bool,
    quiet: bool,
    progress: bool,
    pager: bool,
}

/// Text in a style; plain where no colour is wanted.
pub(crate) struct Styled<T> {
    text: T,
    style: Option<Style>,
}

impl<T: Display> Display for Styled<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.style {
            Some(style) => {
                write!(f, "{style}")?;
                self.text.fmt(f)?;
                write!(f, "{style:#}")
            }
            None => self.text.fmt(f),
        }
    }
}

impl Ui {
    /// Prints to stdout and stderr as the options want it.
    pub(crate) fn terminal(global: &Global) -> Ui {
        let out_is_terminal = io::stdout().is_terminal();
        let error_is_terminal = io::stderr().is_terminal();
        let color = |is_terminal: bool| match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => is_terminal && !settings::no_color(),
        };
        let out: Box<dyn Write> = Box::new(BufWriter::with_capacity(STDOUT_BUFFER_BYTES, io::stdout()));
        Ui {
            out: Rc::new(RefCell::new(out)),
            closed: Rc::default(),
            captured: None,
            color_out: color(out_is_terminal) && !global.json,
            color_error: color(error_is_terminal) && !global.json,
            out_is_terminal,
            json: global.json,
            quiet: global.quiet,
            progress: error_is_terminal && !global.no_progress && !global.quiet && !global.json,
            pager: out_is_terminal && !global.no_pager && !global.json,
        }
    }

    /// Prints for a program, before the options are known.
    pub(crate) fn machine() -> Ui {
        Ui::terminal(&Global { json: true, ..Global::default() })
    }

    /// The same, keeping what would go to stdout.
    pub(crate) fn capturing(&self, json: bool) -> Ui {
        let kept: Rc<RefCell<Vec<u8>>> = Rc::default();
        let out: Box<dyn Write> = Box::new(Kept(Rc::clone(&kept)));
        Ui {
            out: Rc::new(RefCell::new(out)),
            captured: Some(kept),
            color_out: false,
            out_is_terminal: false,
            json,
            progress: false,
            pager: false,
            quiet: true,
            ..self.clone()
        }
    }

    /// The same without notes, hints and progress.
    pub(crate) fn without_notes(&self) -> Ui {
        Ui { quiet: true, progress: false, ..self.clone() }
    }

    /// What was kept.
    pub(crate) fn captured(&self) -> Vec<u8> {
        self.captured.as_ref().map(|kept| kept.borrow().clone()).unwrap_or_default()
    }

    /// Whether answers are JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether stdout is a terminal.
    pub(crate) fn out_is_terminal(&self) -> bool {
        self.out_is_terminal
    }

    /// Whether the reader of stdout has gone away.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Shows what is printed from now on in the user's pager, on a terminal. The pager has ended when the last copy
    /// of this is gone.
    pub(crate) fn page(&self) {
        if let Some(pager) = self.pager.then(Pager::start).flatten() {
            let _ = self.flush();
            *self.out.borrow_mut() = Box::new(BufWriter::with_capacity(STDOUT_BUFFER_BYTES, pager));
        }
    }

    // ---- stdout

    /// Prints bytes as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<()> {
        let written = self.out.borrow_mut().write_all(bytes);
        self.written(written)
    }

    /// Prints a line.
    pub(crate) fn line(&self, text: impl Display) -> Result<()> {
        let written = writeln!(self.out.borrow_mut(), "{text}");
        self.written(written)
    }

    /// Prints a value as one line of JSON.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(value)
            .map_err(|error| Error::invalid("cannot write the answer as JSON").with_source(error))?;
        self.line(sanitize::json(&text))
    }

    /// Makes sure that all of it is printed.
    pub(crate) fn flush(&self) -> Result<()> {
        let written = self.out.borrow_mut().flush();
        self.written(written)
    }

    fn written(&self, written: io::Result<()>) -> Result<()> {
        written.map_err(|error| {
            self.closed.set(error.kind() == io::ErrorKind::BrokenPipe || self.closed.get());
            Error::io("cannot write to stdout", error)
        })
    }

    /// An id or a name.
    pub(crate) fn name<T: Display>(&self, text: T) -> Styled<T> {
        self.styled(text, NAME)
    }

    /// An agent's.
    pub(crate) fn agent<T: Display>(&self, text: T) -> Styled<T> {
        self.styled(text, AGENT)
    }

    /// Something of less weight.
    pub(crate) fn faint<T: Display>(&self, text: T) -> Styled<T> {
        self.styled(text, FAINT)
    }

    /// Something of more weight.
    pub(crate) fn strong<T: Display>(&self, text: T) -> Styled<T> {
        self.styled(text, STRONG)
    }

    /// Something that is wrong.
    pub(crate) fn bad<T: Display>(&self, text: T) -> Styled<T> {
        self.styled(text, BAD)
    }

    fn styled<T>(&self, text: T, style: Style) -> Styled<T> {
        Styled { text, style: self.color_out.then_some(style) }
    }

    // ---- stderr

    /// Tells something that is no answer.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet && !self.json {
            self.tell(&sanitize::line(text));
        }
    }

    /// Says what to do next.
    pub(crate) fn hint(&self, text: &str) {
        if !self.quiet && !self.json {
            let label = self.styled_error("hint:", HINT);
            self.tell(&format!("{label} {}", sanitize::line(text)));
        }
    }

    /// Says that something was skipped or looks wrong.
    pub(crate) fn warn(&self, text: &str) {
        let label = self.styled_error("warning:", WARN);
        self.tell(&format!("{label} {}", sanitize::line(text)));
    }

    /// Says what failed.
    pub(crate) fn error(&self, text: &str) {
        let label = self.styled_error("error:", BAD);
        self.tell(&format!("{label} {}", sanitize::block(text)));
    }

    /// Says more of what failed.
    pub(crate) fn error_detail(&self, text: &str) {
        for line in text.lines() {
            self.tell(&format!("  {}", sanitize::line(line)));
        }
    }

    /// Says what failed, for a program.
    pub(crate) fn error_json(&self, value: &impl Serialize) {
        if let Ok(text) = serde_json::to_string(value) {
            self.tell(&sanitize::json(&text));
        }
    }

    fn styled_error<T>(&self, text: T, style: Style) -> Styled<T> {
        Styled { text, style: self.color_error.then_some(style) }
    }

    fn tell(&self, text: &str) {
        // The answer so far first, so that both read in order on one terminal. If stderr is gone, nobody is told.
        let _ = self.flush();
        let _ = writeln!(io::stderr(), "{text}");
    }

    // ---- talk

    /// Asks, and takes anything but yes as no; `None` where nobody can answer.
    pub(crate) fn confirm(&self, question: &str) -> Result<Option<bool>> {
        if self.json || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Ok(None);
        }
        self.flush()?;
        let _ = write!(io::stderr(), "{question} [y/N] ");
        let mut answer = String::new();
        io::stdin()
            .lock()
            .read_line(&mut answer)
            .map_err(|error| Error::io("cannot read the answer", error))?;
        Ok(Some(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")))
    }

    /// Reads stdin to its end, which must come soon.
    pub(crate) fn input(&self, bytes_max: u64) -> Result<Vec<u8>> {
        self.flush()?;
        let mut bytes = Vec::new();
        let read = io::stdin().lock().take(bytes_max + 1).read_to_end(&mut bytes);
        read.map_err(|error| Error::io("cannot read stdin", error))?;
        if bytes.len() as u64 > bytes_max {
            return Err(Error::invalid(format!("cannot read stdin: expected at most {bytes_max} bytes")));
        }
        Ok(bytes)
    }

    /// Hands over what comes on stdin, to its end.
    pub(crate) fn input_into(&self, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.flush()?;
        let mut input = io::stdin().lock();
        let mut buffer = vec![0; STDIN_BUFFER_BYTES];
        loop {
            match input.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => take(&buffer[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("cannot read stdin", error)),
            }
        }
    }

    /// Stdout for bytes that other threads write, after all that was printed; nothing is printed beside them.
    pub(crate) fn pipe(&self) -> Result<impl Write + Send + use<>> {
        self.flush()?;
        Ok(io::stdout())
    }

    /// Shows how long work goes on, where somebody looks.
    pub(crate) fn progress(&self) -> Box<dyn Progress> {
        if !self.progress {
            return Box::new(Silent);
        }
        let _ = self.flush();
        Box::new(Bar { bar: Mutex::new(None) })
    }
}

struct Kept(Rc<RefCell<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Progress as a line on stderr.
struct Bar {
    bar: Mutex<Option<ProgressBar>>,
}

impl Bar {
    fn with(&self, work: impl FnOnce(&mut Option<ProgressBar>)) {
        work(&mut self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

impl Progress for Bar {
    fn start(&self, stage: &str, bytes: Option<u64>) {
        let template = match bytes {
            Some(_) => "{msg:12} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}",
            None => "{msg:12} {spinner} {bytes} {bytes_per_sec} {elapsed}",
        };
        let bar = match bytes {
            Some(bytes) => ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr()),
            None => ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(sanitize::line(stage).into_owned());
        self.with(|slot| {
            if let Some(previous) = slot.replace(bar) {
                previous.finish_and_clear();
            }
        });
    }

    fn advance(&self, bytes: u64) {
        self.with(|slot| {
            if let Some(bar) = slot {
                bar.inc(bytes);
            }
        });
    }

    fn finish(&self) {
        self.with(|slot| {
            if let Some(bar) = slot.take() {
                bar.finish_and_clear();
            }
        });
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.finish();
    }
}

/// A number of bytes for people.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    let (mut tenths, mut unit) = (bytes / 100, 1);
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1_000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// A number with its digits in groups of three.
pub(crate) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_readable() {
        let cases = [
            (0, "0 B", "0"),
            (999, "999 B", "999"),
            (1_000, "1.0 kB", "1,000"),
            (999_999, "999.9 kB", "999,999"),
        ];
        for (number, bytes, grouped) in cases {
            assert_eq!((super::bytes(number).as_str(), super::number(number).as_str()), (bytes, grouped));
        }
        assert_eq!(super::bytes(1_234_567_890), "1.2 GB");
        assert_eq!(super::number(1_234_567), "1,234,567");
    }
}
