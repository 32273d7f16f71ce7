//! What all checks came to: a table for people, JSON for programs.

use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Instant;

/// What one check came to.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The check, as `--require` names it.
    pub check: &'static str,
    /// Which program answered, in which version.
    pub tool: String,
    /// How many pipelines were accepted.
    pub accepted: usize,
    /// How many were refused for each reason, and which.
    pub refused: BTreeMap<String, Vec<String>>,
    /// How many the tool was not asked about, or could not judge, for each reason.
    pub excused: BTreeMap<String, usize>,
    /// Why the check did not run.
    pub left_out: Option<String>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
    /// Details for programs.
    pub details: serde_json::Value,
    /// How long it took.
    pub seconds: f64,
}

impl Outcome {
    /// An outcome without any pipelines.
    pub fn new(check: &'static str, tool: impl Into<String>) -> Self {
        Self {
            check,
            tool: tool.into(),
            accepted: 0,
            refused: BTreeMap::new(),
            excused: BTreeMap::new(),
            left_out: None,
            notes: Vec::new(),
            details: serde_json::Value::Null,
            seconds: 0.0,
        }
    }

    /// Of a check that cannot run.
    pub fn left_out(check: &'static str, why: impl Into<String>) -> Self {
        Self { left_out: Some(why.into()), ..Self::new(check, "") }
    }

    /// Counts a pipeline.
    pub fn add(&mut self, pipeline: &str, result: Result<(), &str>) {
        match result {
            Ok(()) => self.accepted += 1,
            // One line is enough to tell reasons apart.
            Err(reason) => {
                let reason = reason.lines().next().unwrap_or("no reason").to_string();
                self.refused.entry(reason).or_default().push(pipeline.to_string());
            }
        }
    }

    /// Counts a pipeline that the tool cannot judge.
    pub fn excuse(&mut self, reason: &str) {
        *self.excused.entry(reason.to_string()).or_default() += 1;
    }

    /// With the time since `start`.
    pub fn timed(mut self, start: Instant) -> Self {
        self.seconds = start.elapsed().as_secs_f64();
        self
    }

    /// How many were refused.
    pub fn refusals(&self) -> usize {
        self.refused.values().map(Vec::len).sum()
    }

    /// Whether it ran and refused something, or did not run and is required.
    pub fn failed(&self, required: &[String]) -> bool {
        self.refusals() > 0 || (self.left_out.is_some() && required.iter().any(|name| name == self.check))
    }
}

/// Pipelines that are named for each reason.
const NAMED: usize = 5;

/// The outcomes as a table, and below it why pipelines were refused or not judged.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut rows = vec![["check", "by", "accepted", "refused", "not asked", "seconds"].map(String::from)];
    for o in outcomes {
        let excused: usize = o.excused.values().sum();
        rows.push(match &o.left_out {
            Some(_) => [o.check.into(), "left out".into(), String::new(), String::new(), String::new(), String::new()],
            None => {
                let numbers = [o.accepted, o.refusals(), excused].map(|n| n.to_string());
                let [accepted, refused, excused] = numbers;
                // Those without a time ran along with the first.
                let seconds = if o.seconds > 0.0 { format!("{:.1}", o.seconds) } else { String::new() };
                [o.check.into(), o.tool.clone(), accepted, refused, excused, seconds]
            }
        });
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cell = |(column, value): (usize, &String)| match column {
            0 | 1 => format!("{value:<width$}", width = widths[column]),
            _ => format!("{value:>width$}", width = widths[column]),
        };
        let line = row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ");
        text += &format!("{}\n", line.trim_end());
    }
    for o in outcomes {
        if let Some(why) = &o.left_out {
            text += &format!("\n{}: left out: {why}", o.check);
        }
        for (reason, pipelines) in &o.refused {
            text += &format!("\n{}: {} refused: {reason}", o.check, pipelines.len());
            pipelines.iter().take(NAMED).for_each(|name| text += &format!("\n    {name}"));
            if pipelines.len() > NAMED {
                text += &format!("\n    and {} more", pipelines.len() - NAMED);
            }
        }
        for (reason, count) in &o.excused {
            text += &format!("\n{}: {count} not asked: {reason}", o.check);
        }
        o.notes.iter().for_each(|note| text += &format!("\n{}: {note}", o.check));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_fails_and_what_cannot_run_fails_where_it_is_required() {
        let mut outcome = Outcome::new("radv", "Mesa");
        outcome.add("a", Ok(()));
        outcome.excuse("too old");
        assert!(!outcome.failed(&["radv".into()]));
        outcome.add("b", Err("it spills\nmore"));
        assert!(outcome.failed(&[]));
        let left_out = Outcome::left_out("tint", "no Node.js");
        assert!(!left_out.failed(&["radv".into()]) && left_out.failed(&["tint".into()]));
        let text = table(&[outcome, left_out]);
        for line in ["radv: 1 refused: it spills\n    b", "radv: 1 not asked: too old", "tint: left out: no Node.js"] {
            assert!(text.contains(line), "{text}");
        }
    }
}
