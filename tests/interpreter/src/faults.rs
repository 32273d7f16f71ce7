//! Keeps the first fault of each kind at each place.

use crate::execute::Machine;
use crate::program::{Part, Place};
use crate::report::{Fault, FaultKind};
use std::collections::HashMap;

#[derive(Default)]
pub(crate) struct Log {
    pub faults: Vec<Fault>,
    /// Number of the fault of a kind at a site; None: it was not kept.
    known: HashMap<(FaultKind, u32), Option<usize>>,
    pub dropped: u64,
}

impl Machine<'_> {
    /// Notes a fault; `detail` says what else is known, after the place in the source.
    #[cold]
    pub fn fault(&mut self, kind: FaultKind, site: u32, detail: impl FnOnce(&Self) -> String) {
        match self.faults.known.get(&(kind, site)) {
            Some(Some(number)) => self.faults.faults[*number].times += 1,
            Some(None) => {}
            None if self.faults.faults.len() >= self.options.max_faults => {
                self.faults.known.insert((kind, site), None);
                self.faults.dropped += 1;
            }
            None => {
                let place = &self.program.sites[site as usize];
                let at = format!("line {}, `{}`: {}", place.line, place.text, detail(self));
                self.faults.known.insert((kind, site), Some(self.faults.faults.len()));
                self.faults.faults.push(Fault { kind, at, workgroup: self.workgroup, times: 1 });
            }
        }
    }

    /// The name of what a lane accesses, with the values of its indices.
    pub fn name_of(&self, place: &Place, lane: usize) -> String {
        let parts = place.name.iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Index(term) => {
                let value = self.word(place.terms[*term].index, lane);
                // What is far beyond every array is a negative index.
                if value > i32::MAX as u32 { format!("[{}]", value as i32) } else { format!("[{value}]") }
            }
        });
        parts.collect()
    }
}
