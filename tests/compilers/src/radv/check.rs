//! Every pipeline of real sessions on AMD cards, compiled; those that run by default must keep what they hold in registers.

use super::{Job, Row, Table, compile, probe};
use crate::pipelines::{Class, Pipelines};
use crate::report::Outcome;
use crate::translate::Translated;
use std::collections::BTreeMap;

/// The kinds of cards: family names of the driver, the newest first, and the class of adapters that they are of.
pub const CARDS: [Card; 2] = [
    Card { check: "radv", families: &["navi31", "gfx1100"], class: "Vulkan AMD" },
    Card { check: "radv-navi21", families: &["navi21"], class: "Vulkan AMD without matrices" },
];

/// A kind of cards.
pub struct Card {
    /// The name of the check.
    pub check: &'static str,
    /// As versions of the driver name it.
    pub families: &'static [&'static str],
    /// Name of the class of adapters.
    pub class: &'static str,
}

/// Compiles the pipelines that sessions need on a card, of those whose SPIR-V was kept; `before` are the program and arguments
/// that bring the driver, nothing for the system's own.
pub fn check(
    card: &Card,
    before: &[String],
    class: Class,
    all: &BTreeMap<String, Translated>,
    pipelines: &Pipelines,
    defaults_only: bool,
) -> (Outcome, Option<Table>) {
    let (launcher, driver) = match probe(before, card.families) {
        Ok(found) => found,
        Err(why) => return (Outcome::left_out(card.check, format!("RADV does not open: {why}")), None),
    };
    let mut outcome = Outcome::new(card.check, format!("{}, {}", driver.name, driver.version));
    let (mut jobs, mut rows) = (Vec::new(), Vec::new());
    for (key, translated) in all {
        let (Some(file), Ok(facts)) = (&translated.file, &translated.facts) else { continue };
        let Some(need) = pipelines[key].needs.get(&class) else { continue };
        if defaults_only && !need.is_default {
            continue;
        }
        if facts.matrices && !driver.matrices {
            outcome.excuse("this Mesa has no cooperative matrices");
            continue;
        }
        jobs.push(Job { file: file.clone(), bindings: facts.bindings.clone(), matrices: facts.matrices });
        rows.push((key, need.clone(), facts.matrices));
    }
    let replies = compile(&launcher, &jobs);
    let row = |((key, need, matrices), reply): ((&String, _, _), _)| Row { key: key.clone(), need, matrices, reply };
    let rows: Vec<Row> = rows.into_iter().zip(replies).map(row).collect();
    for row in &rows {
        match &row.reply.refused {
            Some(reason) => outcome.add(&row.key, Err(reason)),
            None if row.need.is_default && row.spills() => {
                outcome.add(&row.key, Err("a default kernel spills its registers"));
            }
            None if row.need.is_default && row.has_array_in_memory() => {
                outcome.add(&row.key, Err("a default kernel holds an array in memory"));
            }
            None => outcome.add(&row.key, Ok(())),
        }
    }
    let table = Table { driver, family: launcher.family, rows };
    outcome.notes.extend(table.summary());
    outcome.details = table.json();
    (outcome, Some(table))
}
