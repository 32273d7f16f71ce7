//! Counts what accesses cost: sectors of storage memory, cycles of the banks of workgroup memory.

use crate::execute::Machine;
use crate::program::Space;
use crate::report::Conflict;

/// Different sectors of `size` bytes that accesses of `bytes` bytes touch; `scratch` is a workplace.
fn sectors(starts: impl Iterator<Item = usize>, bytes: usize, size: usize, scratch: &mut Vec<u32>) -> u64 {
    scratch.clear();
    let mut sorted = true;
    for start in starts {
        for sector in start / size..=(start + bytes - 1) / size {
            let sector = sector as u32;
            match scratch.last() {
                Some(last) if *last == sector => continue,
                Some(last) if *last > sector => sorted = false,
                _ => {}
            }
            scratch.push(sector);
        }
    }
    if !sorted {
        scratch.sort_unstable();
        scratch.dedup();
    }
    scratch.len() as u64
}

/// Cycles in which banks of 4 bytes deliver words: as many as the bank with the most different words has.
fn cycles(words: impl Iterator<Item = u32>, banks: u32, scratch: &mut Vec<u32>) -> u32 {
    scratch.clear();
    scratch.extend(words);
    let sorted = scratch.is_sorted();
    if !sorted {
        scratch.sort_unstable();
    }
    scratch.dedup();
    // Different words that lie together meet different banks.
    let (Some(first), Some(last)) = (scratch.first(), scratch.last()) else { return 0 };
    if last - first < banks {
        return 1;
    }
    let mut found = [0u16; 64];
    for word in scratch.iter() {
        found[(word % banks) as usize] += 1;
    }
    u32::from(found.into_iter().max().unwrap_or(0))
}

impl Machine<'_> {
    /// Counts an access of the listed lanes, `start` bytes from their addresses.
    pub fn count_access(&mut self, global: usize, start: u32, bytes: u32, store: bool, site: u32) {
        let asked = u64::from(bytes) * self.list.len() as u64;
        match self.program.globals[global].space {
            Space::Uniform => self.counts.uniform_bytes += asked,
            Space::Storage => {
                let base = self.regions[global].offset + start as usize;
                let mut sum = 0;
                let (size, sector) = (self.subgroup_size, self.options.sector_bytes as usize);
                for lanes in self.list.chunk_by(|a, b| usize::from(*a) / size == usize::from(*b) / size) {
                    let starts = lanes.iter().map(|lane| base + self.addresses[usize::from(*lane)] as usize);
                    sum += sectors(starts, bytes as usize, sector, &mut self.scratch);
                }
                if store {
                    self.counts.global_store_bytes += asked;
                } else {
                    self.counts.global_load_bytes += asked;
                }
                self.count_sectors(sum, store, site);
            }
            Space::Workgroup => {
                if store {
                    self.counts.workgroup_store_bytes += asked;
                } else {
                    self.counts.workgroup_load_bytes += asked;
                }
                self.count_banks(global, start, bytes, site);
            }
        }
    }

    fn count_sectors(&mut self, sectors: u64, store: bool, site: u32) {
        let line = &mut self.by_site[site as usize];
        if store {
            self.counts.global_store_sectors += sectors;
            line.global_store_sectors += sectors;
        } else {
            self.counts.global_load_sectors += sectors;
            line.global_load_sectors += sectors;
        }
    }

    fn count_banks(&mut self, global: usize, start: u32, bytes: u32, site: u32) {
        let banks = self.options.banks;
        // A vector of three is served like one of four.
        let wide = bytes.next_multiple_of(4).next_power_of_two();
        let together = (self.options.bank_lanes * 4 / wide).max(1) as usize;
        let base = self.regions[global].offset as u32 + start;
        let size = self.subgroup_size;
        let phase_of = |lane: u16| (usize::from(lane) / size, usize::from(lane) % size / together);
        let (mut sum, mut phases, mut worst, mut instructions, mut last) = (0, 0, 0, 0, usize::MAX);
        for lanes in self.list.chunk_by(|a, b| phase_of(*a) == phase_of(*b)) {
            let words = lanes.iter().flat_map(|lane| {
                let at = base + self.addresses[usize::from(*lane)];
                at / 4..=(at + bytes - 1) / 4
            });
            let found = cycles(words, banks, &mut self.scratch);
            sum += u64::from(found);
            phases += 1;
            worst = worst.max(found);
            let subgroup = usize::from(lanes[0]) / size;
            instructions += u64::from(subgroup != last);
            last = subgroup;
        }
        self.counts.workgroup_accesses += instructions;
        self.add_cycles(sum, phases, worst, site);
    }

    fn add_cycles(&mut self, cycles: u64, ideal: u64, worst: u32, site: u32) {
        self.counts.bank_cycles += cycles;
        self.counts.bank_cycles_ideal += ideal;
        let line = &mut self.by_site[site as usize];
        line.bank_cycles += cycles;
        line.bank_cycles_ideal += ideal;
        if worst > self.counts.worst_conflict.as_ref().map_or(0, |conflict| conflict.ways) {
            let place = &self.program.sites[site as usize];
            let conflict = Conflict { ways: worst, line: place.line, source: place.text.clone() };
            self.counts.worst_conflict = Some(conflict);
        }
    }

    /// Counts a cooperative access to rows of `bytes` bytes each. Workgroup memory serves 16 bytes of each of 8 rows in a phase.
    pub fn count_rows(&mut self, global: usize, starts: &[usize], bytes: usize, store: bool, site: u32) {
        let total = (starts.len() * bytes) as u64;
        if store {
            self.counts.cooperative_store_bytes += total;
        } else {
            self.counts.cooperative_load_bytes += total;
        }
        if self.program.globals[global].space != Space::Workgroup {
            let sector = self.options.sector_bytes as usize;
            let sum = sectors(starts.iter().copied(), bytes, sector, &mut self.scratch);
            self.count_sectors(sum, store, site);
            return;
        }
        let (mut sum, mut phases, mut worst) = (0, 0, 0);
        let rows = (self.options.bank_lanes as usize * 4 / 16).max(1);
        for starts in starts.chunks(rows) {
            for part in 0..bytes.div_ceil(16) {
                let words = starts.iter().flat_map(|start| {
                    let at = (start + part * 16) as u32;
                    at / 4..=(at + 15) / 4
                });
                let found = cycles(words, self.options.banks, &mut self.scratch);
                sum += u64::from(found);
                phases += 1;
                worst = worst.max(found);
            }
        }
        self.counts.workgroup_accesses += 1;
        self.add_cycles(sum, phases, worst, site);
    }
}
