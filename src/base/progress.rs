//! Progress on stderr: a bar for a person at a terminal, plain lines for a job's log file, JSON lines for a program.
//! Nothing here fails: a closed stderr must not end a training run.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Number, Value, json};

/// How progress is shown (`--progress`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// A bar when stderr is a terminal, else plain lines
    #[default]
    Auto,
    /// A bar that moves
    Bar,
    /// A line now and then, as a log file likes it
    Plain,
    /// One JSON object per line, at most one a second
    Json,
}

/// The progress of one piece of work. Nothing is shown before the first `update`.
pub struct Progress {
    what: String,
    total: Option<u64>,
    output: Output,
    /// Where the count stood at the first update: a resumed run must not count what was done before it.
    baseline: Option<(u64, Instant)>,
    shown: Option<Instant>,
    /// The latest line that was held back, for `finish`.
    pending: Option<String>,
}

enum Output {
    Bar(Option<ProgressBar>),
    Plain,
    Json,
    Quiet,
}

impl Progress {
    /// `total` is the number of units when known, `what` a word or two such as "pre-training".
    pub fn new(mode: Mode, total: Option<u64>, what: &str) -> Self {
        let output = match mode {
            Mode::Auto if std::io::stderr().is_terminal() => Output::Bar(None),
            Mode::Bar => Output::Bar(None),
            Mode::Auto | Mode::Plain => Output::Plain,
            Mode::Json => Output::Json,
        };
        Self { what: what.into(), total, output, baseline: None, shown: None, pending: None }
    }

    /// Shows nothing at all, messages included, when `quiet`.
    pub fn quiet(mut self, quiet: bool) -> Self {
        if quiet {
            self.output = Output::Quiet;
        }
        self
    }

    /// Reports that `done` units are done, with a few values of interest such as `("loss", "0.312".into())`.
    pub fn update(&mut self, done: u64, fields: &[(&str, String)]) {
        let now = Instant::now();
        let (first, started) = *self.baseline.get_or_insert((done, now));
        let elapsed = now - started;
        let left =
            self.total.and_then(|total| time_left(done.saturating_sub(first), total.saturating_sub(done), elapsed));
        let (line, interval) = match &mut self.output {
            Output::Quiet => return,
            Output::Bar(bar) => {
                let bar = bar.get_or_insert_with(|| new_bar(self.total, &self.what));
                bar.set_message(detail(left, fields));
                bar.set_position(done);
                return;
            }
            Output::Plain => (plain_line(&self.what, done, self.total, left, fields), plain_interval(elapsed)),
            Output::Json => (json_line(&self.what, done, self.total, left, fields), Duration::from_secs(1)),
        };
        self.pending = Some(line);
        if self.shown.is_none_or(|shown| now - shown >= interval) {
            self.show_pending();
            self.shown = Some(now);
        }
    }

    /// Says something, above the bar if there is one.
    pub fn message(&self, text: &str) {
        match &self.output {
            Output::Quiet => {}
            Output::Bar(Some(bar)) => bar.suspend(|| say(text)),
            Output::Json => say(&json!({ "message": text }).to_string()),
            Output::Bar(None) | Output::Plain => say(text),
        }
    }

    /// Leaves the last state on the screen or in the log.
    pub fn finish(mut self) {
        self.show_pending();
        if let Output::Bar(Some(bar)) = &self.output {
            bar.abandon();
        }
    }

    fn show_pending(&mut self) {
        if let Some(line) = self.pending.take() {
            say(&line);
        }
    }
}

/// Like `eprintln!`, but a closed stderr is no reason to panic.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

const BAR: &str = "{prefix} {bar:20.cyan/blue} {pos}/{len} {percent}%{wide_msg}";
const SPINNER: &str = "{prefix} {spinner} {pos} {elapsed}{wide_msg}";

fn new_bar(total: Option<u64>, what: &str) -> ProgressBar {
    let template = if total.is_some() { BAR } else { SPINNER };
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    // The templates are constants and tested; the default look is a fine replacement all the same.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style);
    bar.set_prefix(what.to_string());
    bar
}

/// A line at most every 10 s in the first minute, then once a minute: enough to see it start, not enough to fill a log.
fn plain_interval(elapsed: Duration) -> Duration {
    Duration::from_secs(if elapsed < Duration::from_secs(60) { 10 } else { 60 })
}

/// At the average speed since the first update; unknown before there is a speed.
fn time_left(done: u64, remaining: u64, elapsed: Duration) -> Option<Duration> {
    if done == 0 {
        return None;
    }
    Duration::try_from_secs_f64(elapsed.as_secs_f64() / done as f64 * remaining as f64).ok()
}

/// `, 12 min left, loss 0.312, 8.1 patches/s`: a field whose name is a unit of speed goes behind its value.
fn detail(left: Option<Duration>, fields: &[(&str, String)]) -> String {
    let left = left.filter(|l| !l.is_zero()).map(|left| format!("{} left", human(left)));
    let fields = fields.iter().map(|(name, value)| match name.ends_with("/s") {
        true => format!("{value} {name}"),
        false => format!("{name} {value}"),
    });
    left.into_iter().chain(fields).map(|part| format!(", {part}")).collect()
}

fn plain_line(what: &str, done: u64, total: Option<u64>, left: Option<Duration>, fields: &[(&str, String)]) -> String {
    let count = match total {
        Some(0) | None => done.to_string(),
        Some(total) => format!("{done}/{total} ({}%)", (u128::from(done) * 100 / u128::from(total)).min(100)),
    };
    format!("{what}: {count}{}", detail(left, fields))
}

/// Values that are numbers become JSON numbers.
fn json_line(what: &str, done: u64, total: Option<u64>, left: Option<Duration>, fields: &[(&str, String)]) -> String {
    let seconds_left = left.map(|l| l.as_secs());
    let mut object = json!({ "progress": what, "done": done, "total": total, "seconds_left": seconds_left });
    for (name, value) in fields {
        object[*name] = value.parse::<Number>().map_or_else(|_| value.as_str().into(), Value::Number);
    }
    object.to_string()
}

/// Two units at most: `45 s`, `12 min`, `3 h 05 min`, `2 d 4 h`.
pub fn human(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    let minutes = (seconds + 30) / 60;
    match (seconds, minutes) {
        (..90, _) => format!("{} s", seconds.max(1)),
        (_, ..90) => format!("{minutes} min"),
        (_, ..2880) => format!("{} h {:02} min", minutes / 60, minutes % 60),
        _ => format!("{} d {} h", minutes / 1440, minutes % 1440 / 60),
    }
}

/// The first few of a list, and how many there are more.
pub fn few(list: impl IntoIterator<Item = String>) -> String {
    const SHOWN: usize = 3;
    let list: Vec<String> = list.into_iter().collect();
    let more = list.len().saturating_sub(SHOWN);
    let shown = list[..list.len() - more].join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Vec<(&'static str, String)> {
        vec![("loss", "0.312".into()), ("patches/s", "8.1".into()), ("note", "warm-up".into())]
    }

    #[test]
    fn modes_are_read_by_name() {
        let names = ["auto", "bar", "plain", "json"].map(|n| <Mode as clap::ValueEnum>::from_str(n, false).unwrap());
        assert_eq!(names, [Mode::Auto, Mode::Bar, Mode::Plain, Mode::Json]);
        assert!(<Mode as clap::ValueEnum>::from_str("fancy", false).is_err());
    }

    #[test]
    fn lines_say_where_the_work_stands() {
        let left = Some(Duration::from_secs(700));
        assert_eq!(
            plain_line("training", 50, Some(200), left, &fields()),
            "training: 50/200 (25%), 12 min left, loss 0.312, 8.1 patches/s, note warm-up"
        );
        assert_eq!(plain_line("reading", 7, None, None, &[]), "reading: 7");
        assert_eq!(plain_line("nothing", 0, Some(0), None, &[]), "nothing: 0");
        assert_eq!(
            json_line("training", 50, Some(200), left, &fields()),
            r#"{"progress":"training","done":50,"total":200,"seconds_left":700,"loss":0.312,"patches/s":8.1,"note":"warm-up"}"#
        );
        assert_eq!(
            json_line("x", 1, None, None, &[("loss", "NaN".into())]),
            r#"{"progress":"x","done":1,"total":null,"seconds_left":null,"loss":"NaN"}"#
        );
    }

    #[test]
    fn the_time_left_counts_only_what_this_process_did() {
        // 10 units in 20 s, 100 remain.
        assert_eq!(time_left(10, 100, Duration::from_secs(20)), Some(Duration::from_secs(200)));
        assert_eq!(time_left(0, 100, Duration::from_secs(20)), None);
        assert_eq!(time_left(1, u64::MAX, Duration::from_secs(u64::MAX)), None, "no overflow");
        let mut progress = Progress::new(Mode::Plain, Some(10), "resumed").quiet(true);
        progress.update(7, &[]);
        assert_eq!(progress.baseline.unwrap().0, 7);
    }

    #[test]
    fn durations_are_readable() {
        let text = |s: f64| human(Duration::from_secs_f64(s));
        assert_eq!(
            [0.2, 89.4, 89.6, 720.0, 5369.0, 5370.0, 11_100.0, 172_799.0, 187_200.0].map(text),
            ["1 s", "89 s", "2 min", "12 min", "89 min", "1 h 30 min", "3 h 05 min", "2 d 0 h", "2 d 4 h"]
        );
    }

    #[test]
    fn plain_lines_are_rare_and_the_last_one_is_kept_for_the_end() {
        assert_eq!(plain_interval(Duration::from_secs(59)).as_secs(), 10);
        assert_eq!(plain_interval(Duration::from_secs(61)).as_secs(), 60);
        let mut progress = Progress::new(Mode::Plain, Some(3), "test of progress lines");
        progress.update(1, &[]);
        assert!(progress.pending.is_none(), "the first line is shown at once");
        progress.update(2, &[]);
        progress.update(3, &[]);
        assert_eq!(progress.pending.as_deref(), Some("test of progress lines: 3/3 (100%)"));
        progress.finish();
    }

    #[test]
    fn bar_templates_are_valid_and_counts_beyond_the_total_harmless() {
        for total in [Some(2), None] {
            let mut progress = Progress::new(Mode::Bar, total, "bar");
            (0..5).for_each(|done| progress.update(done, &fields()));
            progress.message("beside the bar");
            progress.finish();
        }
        assert!([BAR, SPINNER].into_iter().all(|t| ProgressStyle::with_template(t).is_ok()));
    }
}
