//! Cooperative matrices: one for each subgroup, held apart from the registers of the lanes.

use crate::access::{all, half_at, word_at};
use crate::execute::Machine;
use crate::mask::Active;
use crate::math;
use crate::memory;
use crate::program::CooperativeAccess;
use crate::report::FaultKind;
use half::f16;

/// Elements that a matrix has at most.
pub(crate) const ELEMENTS: usize = 256;

impl Machine<'_> {
    fn matrix_at(&self, matrix: u32, subgroup: usize) -> usize {
        (matrix as usize * self.subgroups + subgroup) * ELEMENTS
    }

    /// The subgroups with an active lane; all of their lanes must be, and the subgroup must be whole.
    fn whole_subgroups(&mut self, active: &Active, site: u32) -> Vec<usize> {
        let mut out = Vec::new();
        for subgroup in 0..self.subgroups {
            let lanes = self.lanes_of(subgroup);
            let count = lanes.clone().filter(|lane| active.mask.has(*lane)).count();
            if count == 0 {
                continue;
            }
            out.push(subgroup);
            let size = self.subgroup_size;
            if count < size {
                self.fault(FaultKind::NonUniformBarrier, site, |_| {
                    format!("{count} of the {size} lanes of subgroup {subgroup} reach the cooperative operation")
                });
            }
        }
        out
    }

    pub fn zero_matrix(&mut self, matrix: u32, active: &Active) {
        for subgroup in 0..self.subgroups {
            if self.lanes_of(subgroup).any(|lane| active.mask.has(lane)) {
                let at = self.matrix_at(matrix, subgroup);
                self.matrices[at..at + ELEMENTS].fill(0.0);
            }
        }
    }

    /// Copies a matrix; with a site, a copy that the source asks for.
    pub fn copy_matrix(&mut self, to: u32, from: u32, active: &Active, site: Option<u32>) {
        let subgroups = match site {
            Some(site) => self.whole_subgroups(active, site),
            None => (0..self.subgroups).filter(|s| self.lanes_of(*s).any(|lane| active.mask.has(lane))).collect(),
        };
        for subgroup in subgroups {
            let (from, to) = (self.matrix_at(from, subgroup), self.matrix_at(to, subgroup));
            self.matrices.copy_within(from..from + ELEMENTS, to);
        }
    }

    pub fn multiply_add(
        &mut self,
        to: u32,
        (a, b, c): (u32, u32, u32),
        tile: usize,
        half: bool,
        active: &Active,
        site: u32,
    ) {
        for subgroup in self.whole_subgroups(active, site) {
            let elements = tile * tile;
            let [a, b, c, to] = [a, b, c, to].map(|matrix| self.matrix_at(matrix, subgroup));
            let mut sum = [0.0; ELEMENTS];
            let sum = &mut sum[..elements];
            sum.copy_from_slice(&self.matrices[c..c + elements]);
            math::multiply_add(tile, &self.matrices[a..a + elements], &self.matrices[b..b + elements], sum);
            if half {
                sum.iter_mut().for_each(|x| *x = math::round_to_half(*x));
            }
            self.matrices[to..to + elements].copy_from_slice(sum);
            self.counts.matrix_products += 1;
            self.counts.matrix_flops += 2 * (tile * elements) as u64;
            self.by_site[site as usize].matrix_products += 1;
        }
    }

    /// The starts of the rows in memory (columns of a matrix that lies column by column), in bytes from the start of the variable.
    /// None: out of range, which is reported.
    fn rows(&mut self, access: &CooperativeAccess, subgroup: usize, active: &Active) -> Option<Vec<u32>> {
        let lanes: Vec<usize> = self.lanes_of(subgroup).filter(|lane| active.mask.has(*lane)).collect();
        let (place, site) = (&access.place, access.site);
        let region = self.regions[access.global].clone();
        let first = lanes[0];
        let same = |slot| lanes.iter().all(|lane| self.word(slot, *lane) == self.word(slot, first));
        if !same(access.stride) || !place.terms.iter().all(|term| same(term.index)) {
            self.fault(FaultKind::NonUniformBarrier, site, |machine| {
                let name = machine.name_of(place, first);
                format!(
                    "variable `{name}`, lanes of subgroup {subgroup} give different places to a cooperative operation"
                )
            });
        }
        let scalar = if access.half { 2 } else { 4 };
        let bytes = access.tile as u64 * scalar;
        let mut at = u64::from(place.offset);
        let mut inside = true;
        for term in &place.terms {
            let index = self.word(term.index, first);
            inside &= index < term.count.unwrap_or(region.length);
            at += u64::from(index) * u64::from(term.stride);
        }
        let step = u64::from(self.word(access.stride, first)) * u64::from(access.unit);
        let end = at + step * (access.tile as u64 - 1) + bytes;
        if !inside || end > u64::from(region.size) {
            let size = region.size;
            self.fault(FaultKind::OutOfRange, site, |machine| {
                let name = machine.name_of(place, first);
                format!("variable `{name}`, bytes {at} to {end} of {size}, subgroup {subgroup}")
            });
            return None;
        }
        Some((0..access.tile as u64).map(|row| (at + row * step) as u32).collect())
    }

    /// Races and reads of what was never written, in the rows of a subgroup.
    fn track_rows(&mut self, access: &CooperativeAccess, rows: &[u32], subgroup: usize, lane: usize, store: bool) {
        let region = self.regions[access.global].clone();
        let bytes = access.tile * if access.half { 2 } else { 4 };
        let now = self.now(access.global);
        let who = memory::subgroup(subgroup);
        let (mut conflict, mut uninitialised) = (None, false);
        for row in rows {
            let at = region.offset + *row as usize;
            if let Some(buffer) = region.buffer
                && !store
                && !region.complete
            {
                uninitialised |= !all(&self.buffers[buffer].written[at..at + bytes]);
            }
            if let Some(shadow) = region.shadow {
                for cell in self.shadows[shadow].of(at - region.shadow_start, bytes) {
                    uninitialised |= !store && region.buffer.is_none() && !cell.is_written(now);
                    let found = if store { cell.write(now, who) } else { cell.read(now, who) };
                    conflict = conflict.or(found);
                }
            }
        }
        if uninitialised {
            self.fault(FaultKind::Uninitialised, access.site, |machine| {
                format!("variable `{}`, subgroup {subgroup}", machine.name_of(&access.place, lane))
            });
        }
        if let Some(conflict) = conflict {
            self.conflict(conflict, access.site, &access.place, lane, &memory::name(who));
        }
    }

    fn count_cooperative(&mut self, access: &CooperativeAccess, rows: &[u32], store: bool) {
        let offset = self.regions[access.global].offset;
        let starts: Vec<usize> = rows.iter().map(|row| offset + *row as usize).collect();
        let bytes = access.tile * if access.half { 2 } else { 4 };
        self.count_rows(access.global, &starts, bytes, store, access.site);
    }

    /// Where an element of the matrix is held, given its place in memory.
    fn element_at(access: &CooperativeAccess, row: usize, place: usize) -> usize {
        if access.row_major { row * access.tile + place } else { place * access.tile + row }
    }

    pub fn cooperative_load(&mut self, access: &CooperativeAccess, active: &Active) {
        for subgroup in self.whole_subgroups(active, access.site) {
            let to = self.matrix_at(access.matrix, subgroup);
            let Some(rows) = self.rows(access, subgroup, active) else {
                self.matrices[to..to + ELEMENTS].fill(0.0);
                continue;
            };
            self.track_rows(access, &rows, subgroup, self.lanes_of(subgroup).start, false);
            let region = &self.regions[access.global];
            let bytes = match region.buffer {
                Some(buffer) => &self.buffers[buffer].bytes,
                None => &self.memory,
            };
            for (row, start) in rows.iter().enumerate() {
                let start = region.offset + *start as usize;
                for place in 0..access.tile {
                    let value = if access.half {
                        half_at(bytes, start + place * 2)
                    } else {
                        f32::from_bits(word_at(bytes, start + place * 4))
                    };
                    self.matrices[to + Self::element_at(access, row, place)] = value;
                }
            }
            self.count_cooperative(access, &rows, false);
        }
    }

    pub fn cooperative_store(&mut self, access: &CooperativeAccess, active: &Active) {
        for subgroup in self.whole_subgroups(active, access.site) {
            let Some(rows) = self.rows(access, subgroup, active) else { continue };
            self.track_rows(access, &rows, subgroup, self.lanes_of(subgroup).start, true);
            let from = self.matrix_at(access.matrix, subgroup);
            let (offset, buffer) = (self.regions[access.global].offset, self.regions[access.global].buffer);
            for (row, start) in rows.iter().enumerate() {
                let start = offset + *start as usize;
                for place in 0..access.tile {
                    let value = self.matrices[from + Self::element_at(access, row, place)];
                    if access.half {
                        self.write_bytes(buffer, start + place * 2, &f16::from_f32(value).to_le_bytes());
                    } else {
                        self.write_bytes(buffer, start + place * 4, &value.to_le_bytes());
                    }
                }
            }
            self.count_cooperative(access, &rows, true);
        }
    }
}
