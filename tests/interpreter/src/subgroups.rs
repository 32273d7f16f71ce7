//! Operations across the lanes of a subgroup.

use crate::execute::Machine;
use crate::mask::Active;
use crate::math;
use crate::program::{Collect, Gather, Scan, Slot};
use crate::report::FaultKind;

impl Machine<'_> {
    /// Lanes of a subgroup; the last may have fewer.
    pub fn lanes_of(&self, subgroup: usize) -> std::ops::Range<usize> {
        let start = subgroup * self.subgroup_size;
        start..(start + self.subgroup_size).min(self.all.count())
    }

    /// The subgroups with an active lane. All their lanes must be active, but those that have returned from the kernel.
    fn subgroups_of(&mut self, active: &Active, site: u32) -> Vec<usize> {
        let mut out = Vec::new();
        for subgroup in 0..self.subgroups {
            let mut lanes = self.lanes_of(subgroup);
            if !lanes.clone().any(|lane| active.mask.has(lane)) {
                continue;
            }
            out.push(subgroup);
            if let Some(lane) = lanes.find(|lane| !active.mask.has(*lane) && !self.exited.has(*lane)) {
                self.fault(FaultKind::NonUniformBarrier, site, |_| {
                    format!("lane {lane} of subgroup {subgroup} does not take part in the operation of its subgroup")
                });
            }
        }
        out
    }

    pub fn gather(&mut self, f: Gather, to: Slot, from: &[Slot], index: Slot, active: &Active, site: u32) {
        for subgroup in self.subgroups_of(active, site) {
            let lanes: Vec<usize> = self.lanes_of(subgroup).filter(|lane| active.mask.has(*lane)).collect();
            let start = subgroup * self.subgroup_size;
            let asked = self.word(index, lanes[0]);
            if matches!(f, Gather::Broadcast) && lanes.iter().any(|lane| self.word(index, *lane) != asked) {
                self.fault(FaultKind::NonUniformBarrier, site, |_| {
                    format!("lanes of subgroup {subgroup} ask for different lanes in a broadcast")
                });
            }
            for lane in &lanes {
                let own = (lane - start) as u32;
                let value = self.word(index, *lane);
                let source = match f {
                    Gather::First => (lanes[0] - start) as u32,
                    Gather::Broadcast => asked,
                    Gather::Shuffle => value,
                    Gather::Down => own.wrapping_add(value),
                    Gather::Up => own.wrapping_sub(value),
                    Gather::Xor => own ^ value,
                };
                let source_lane = start + source.min(self.subgroup_size as u32) as usize;
                let exists = (source as usize) < self.subgroup_size && lanes.contains(&source_lane);
                if !exists {
                    self.fault(FaultKind::OutOfRange, site, |_| {
                        format!(
                            "lane {lane} asks for the value of lane {source} of its subgroup, which does not take part"
                        )
                    });
                }
                for (k, from) in from.iter().enumerate() {
                    let word = if exists { self.word(*from, source_lane) } else { 0 };
                    self.set(to + k as u32, *lane, word);
                }
            }
        }
    }

    pub fn ballot(&mut self, to: Slot, predicate: Option<Slot>, active: &Active, site: u32) {
        for subgroup in self.subgroups_of(active, site) {
            let lanes: Vec<usize> = self.lanes_of(subgroup).filter(|lane| active.mask.has(*lane)).collect();
            let mut bits = [0u32; 4];
            for lane in &lanes {
                if predicate.is_none_or(|slot| self.word(slot, *lane) != 0) {
                    let own = lane % self.subgroup_size;
                    bits[own / 32] |= 1 << (own % 32);
                }
            }
            for lane in lanes {
                for (k, word) in bits.into_iter().enumerate() {
                    self.set(to + k as u32, lane, word);
                }
            }
        }
    }

    /// Sums and the like, in the order of the lanes.
    pub fn collect(&mut self, f: Collect, to: Slot, from: &[Slot], active: &Active, site: u32) {
        let combine = |a: u32, b: u32| {
            let word = math::of_words(f.f, a, b);
            if f.half { math::round_to_half(f32::from_bits(word)).to_bits() } else { word }
        };
        for subgroup in self.subgroups_of(active, site) {
            let lanes: Vec<usize> = self.lanes_of(subgroup).filter(|lane| active.mask.has(*lane)).collect();
            for (k, from) in from.iter().enumerate() {
                let to = to + k as u32;
                let mut sum = f.identity;
                for lane in &lanes {
                    let before = sum;
                    sum = combine(sum, self.word(*from, *lane));
                    self.set(to, *lane, if f.scan == Scan::Exclusive { before } else { sum });
                }
                if f.scan == Scan::Reduce {
                    for lane in &lanes {
                        self.set(to, *lane, sum);
                    }
                }
            }
        }
    }
}
