//! Loads and stores of lanes.

use crate::execute::Machine;
use crate::mask::Active;
use crate::memory::{ATOMIC, Conflict, Now, Who, name};
use crate::program::{AtomicFunction, Place, Slot, Space, Term};
use crate::report::FaultKind;
use crate::types::{Piece, Scalar};
use half::f16;

/// Whether all of these bytes were written.
pub(crate) fn all(written: &[bool]) -> bool {
    // Without a branch for each.
    written.iter().fold(true, |all, written| all & written)
}

impl Machine<'_> {
    /// The first index that is out of range, in words.
    fn index_out_of_range(&self, terms: &[Term], length: u32, lane: usize) -> Option<String> {
        terms.iter().find_map(|term| {
            let (index, count) = (self.word(term.index, lane), term.count.unwrap_or(length));
            (index >= count).then(|| format!("index {} of {count} elements", index as i32))
        })
    }

    /// Finds the addresses of the active lanes, counted from `place`, in `addresses`, and the lanes that are in range in `list`.
    fn locate(&mut self, place: &Place, (length, size, bytes): (u32, u32, u32), active: &Active, site: u32) {
        let (low, high, width) = (active.low, active.high, self.width);
        self.addresses[low..high].fill(place.offset);
        let mut beyond = bytes > size;
        for term in &place.terms {
            let index = &self.registers[term.index as usize * width..][low..high];
            let count = term.count.unwrap_or(length);
            for (address, index) in self.addresses[low..high].iter_mut().zip(index) {
                *address = address.wrapping_add(index.wrapping_mul(term.stride));
                beyond |= *index >= count;
            }
        }
        let last = size.saturating_sub(bytes);
        for address in &self.addresses[low..high] {
            beyond |= *address > last;
        }
        self.list.clear();
        if !beyond {
            if active.is_dense() {
                self.list.extend(low as u16..high as u16);
            } else {
                self.list.extend(active.mask.iter().map(|lane| lane as u16));
            }
            return;
        }
        for lane in active.mask.iter() {
            let index = self.index_out_of_range(&place.terms, length, lane);
            if index.is_none() && bytes <= size && self.addresses[lane] <= last {
                self.list.push(lane as u16);
                continue;
            }
            self.fault(FaultKind::OutOfRange, site, |machine| {
                let address = machine.addresses[lane];
                let how = index.unwrap_or_else(|| format!("{bytes} bytes from byte {address} on of {size}"));
                format!("variable `{}`, {how}, lane {lane}", machine.name_of(place, lane))
            });
        }
    }

    fn locate_global(&mut self, global: usize, place: &Place, bytes: u32, active: &Active, site: u32) {
        let region = &self.regions[global];
        self.locate(place, (region.length, region.size, bytes), active, site);
    }

    /// Locals are found in words; their arrays have a fixed length.
    fn locate_local(&mut self, place: &Place, active: &Active, site: u32) {
        self.locate(place, (0, u32::MAX, 0), active, site);
    }

    /// Sets registers to zero in the active lanes that are out of range.
    fn zero_others(&mut self, to: Slot, words: u32, active: &Active) {
        if self.list.len() == active.count {
            return;
        }
        let listed: Vec<u16> = self.list.clone();
        for lane in active.mask.iter().filter(|lane| listed.binary_search(&(*lane as u16)).is_err()) {
            for k in 0..words {
                self.set(to + k, lane, 0);
            }
        }
    }

    pub fn load_local(&mut self, to: Slot, words: u32, place: &Place, active: &Active, site: u32) {
        self.locate_local(place, active, site);
        let width = self.width;
        for k in 0..words {
            for lane in self.list.iter().map(|lane| usize::from(*lane)) {
                let from = (self.addresses[lane] + k) as usize * width + lane;
                self.registers[(to + k) as usize * width + lane] = self.registers[from];
            }
        }
        self.zero_others(to, words, active);
    }

    pub fn store_local(&mut self, from: &[Slot], place: &Place, active: &Active, site: u32) {
        self.locate_local(place, active, site);
        let width = self.width;
        for (k, from) in from.iter().enumerate() {
            for lane in self.list.iter().map(|lane| usize::from(*lane)) {
                let to = (self.addresses[lane] as usize + k) * width + lane;
                self.registers[to] = self.registers[*from as usize * width + lane];
            }
        }
    }

    pub fn element(&mut self, to: Slot, from: &[Slot], words: u32, index: Slot, active: &Active, site: u32) {
        let count = from.len() as u32 / words;
        for lane in active.mask.iter() {
            let at = self.word(index, lane);
            if at >= count {
                self.fault(FaultKind::OutOfRange, site, |_| {
                    format!("index {} of {count} elements of a value, lane {lane}", at as i32)
                });
            }
            for k in 0..words {
                let word = if at < count { self.word(from[(at * words + k) as usize], lane) } else { 0 };
                self.set(to + k, lane, word);
            }
        }
    }

    fn is_uniform(&self) -> bool {
        let Some(first) = self.list.first() else { return true };
        let first = self.addresses[usize::from(*first)];
        self.list.iter().all(|lane| self.addresses[usize::from(*lane)] == first)
    }

    pub fn now(&self, global: usize) -> Now {
        if self.program.globals[global].space == Space::Storage { self.storage_now() } else { self.workgroup_now() }
    }

    /// Looks for races and for reads of what was never written, at `start` bytes from the addresses of the listed lanes.
    fn track(&mut self, global: usize, place: &Place, (start, bytes): (u32, u32), kind: Kind, site: u32) {
        let region = &self.regions[global];
        let (base, shadow) = (region.offset + start as usize, region.shadow);
        let initialised = matches!(kind, Kind::Store | Kind::AtomicStore) || region.buffer.is_some() && region.complete;
        if initialised && shadow.is_none() {
            return;
        }
        let (buffer, shadow_start, now) = (region.buffer, region.shadow_start, self.now(global));
        // Of lanes that read the same bytes two are enough.
        let count = self.list.len();
        let step = if kind == Kind::Load && self.is_uniform() { count.saturating_sub(1).max(1) } else { 1 };
        for k in (0..count).step_by(step) {
            let lane = usize::from(self.list[k]);
            let at = base + self.addresses[lane] as usize;
            let end = at + bytes as usize;
            let mut uninitialised = match buffer {
                Some(buffer) => !initialised && !all(&self.buffers[buffer].written[at..end]),
                None => false,
            };
            let mut conflict = None;
            if let Some(shadow) = shadow {
                let who = if kind == Kind::Load || kind == Kind::Store { lane as Who } else { ATOMIC };
                let writes = kind == Kind::Store || kind == Kind::Atomic || kind == Kind::AtomicStore;
                for cell in self.shadows[shadow].of(at - shadow_start, bytes as usize) {
                    if buffer.is_none() && !writes || kind == Kind::Atomic {
                        uninitialised |= buffer.is_none() && !cell.is_written(now);
                    }
                    let found = if writes { cell.write(now, who) } else { cell.read(now, who) };
                    conflict = conflict.or(found);
                }
            }
            if uninitialised {
                self.fault(FaultKind::Uninitialised, site, |machine| {
                    format!("variable `{}`, lane {lane}", machine.name_of(place, lane))
                });
            }
            if let Some(conflict) = conflict {
                self.conflict(conflict, site, place, lane, &format!("lane {lane}"));
            }
        }
    }

    #[cold]
    pub fn conflict(&mut self, conflict: Conflict, site: u32, place: &Place, lane: usize, who: &str) {
        let kind = match conflict {
            Conflict::Lanes(_) => FaultKind::Race,
            Conflict::Workgroups => FaultKind::RaceBetweenWorkgroups,
        };
        self.fault(kind, site, |machine| {
            let variable = machine.name_of(place, lane);
            match conflict {
                Conflict::Lanes(other) => format!("variable `{variable}`, {who} and {}", name(other)),
                Conflict::Workgroups => format!("variable `{variable}`, {who} and an earlier workgroup"),
            }
        });
    }

    pub fn load(&mut self, to: Slot, global: usize, place: &Place, pieces: &[Piece], active: &Active, site: u32) {
        let bytes = pieces.iter().map(|piece| piece.offset + piece.bytes()).max().unwrap_or(0);
        self.locate_global(global, place, bytes, active, site);
        let words = pieces.iter().map(|piece| piece.count).sum();
        self.zero_others(to, words, active);
        let mut slot = to;
        for piece in pieces {
            self.track(global, place, (piece.offset, piece.bytes()), Kind::Load, site);
            self.read_piece(slot, global, *piece);
            self.count_access(global, piece.offset, piece.bytes(), false, site);
            slot += piece.count;
        }
    }

    fn read_piece(&mut self, to: Slot, global: usize, piece: Piece) {
        let region = &self.regions[global];
        let base = region.offset + piece.offset as usize;
        let bytes = match region.buffer {
            Some(buffer) => &self.buffers[buffer].bytes,
            None => &self.memory,
        };
        let size = piece.scalar.bytes() as usize;
        for component in 0..piece.count as usize {
            let register = &mut self.registers[(to as usize + component) * self.width..][..self.width];
            let start = base + component * size;
            let lanes = self.list.iter().map(|lane| usize::from(*lane));
            let at = |lane: usize| start + self.addresses[lane] as usize;
            match piece.scalar {
                Scalar::Bool => lanes.for_each(|lane| register[lane] = u32::from(bytes[at(lane)] != 0)),
                Scalar::F16 => lanes.for_each(|lane| register[lane] = half_at(bytes, at(lane)).to_bits()),
                _ => lanes.for_each(|lane| register[lane] = word_at(bytes, at(lane))),
            }
        }
    }

    pub fn store(&mut self, from: &[Slot], global: usize, place: &Place, pieces: &[Piece], active: &Active, site: u32) {
        let bytes = pieces.iter().map(|piece| piece.offset + piece.bytes()).max().unwrap_or(0);
        self.locate_global(global, place, bytes, active, site);
        let mut from = from;
        for piece in pieces {
            let (slots, rest) = from.split_at(piece.count as usize);
            from = rest;
            self.track(global, place, (piece.offset, piece.bytes()), Kind::Store, site);
            self.write_piece(slots, global, *piece);
            self.count_access(global, piece.offset, piece.bytes(), true, site);
        }
    }

    fn write_piece(&mut self, from: &[Slot], global: usize, piece: Piece) {
        let region = &self.regions[global];
        let base = region.offset + piece.offset as usize;
        let mut written = None;
        let bytes = match region.buffer {
            Some(buffer) => {
                let buffer = &mut self.buffers[buffer];
                written = Some(&mut buffer.written).filter(|_| !region.complete);
                &mut buffer.bytes
            }
            None => &mut self.memory,
        };
        let size = piece.scalar.bytes() as usize;
        for (component, from) in from.iter().enumerate() {
            let register = &self.registers[*from as usize * self.width..][..self.width];
            let start = base + component * size;
            for lane in self.list.iter().map(|lane| usize::from(*lane)) {
                let at = start + self.addresses[lane] as usize;
                match piece.scalar {
                    Scalar::Bool => bytes[at] = register[lane] as u8,
                    Scalar::F16 => {
                        let half = f16::from_f32(f32::from_bits(register[lane]));
                        bytes[at..at + 2].copy_from_slice(&half.to_le_bytes());
                    }
                    _ => bytes[at..at + 4].copy_from_slice(&register[lane].to_le_bytes()),
                }
            }
        }
        if let Some(written) = written {
            for lane in self.list.iter().map(|lane| usize::from(*lane)) {
                let at = base + self.addresses[lane] as usize;
                written[at..at + piece.bytes() as usize].fill(true);
            }
        }
    }

    pub fn atomic(
        &mut self,
        f: AtomicFunction,
        global: usize,
        place: &Place,
        (value, compare, result): (Slot, Slot, Option<Slot>),
        active: &Active,
        site: u32,
    ) {
        self.locate_global(global, place, 4, active, site);
        if let Some(result) = result {
            self.zero_others(result, if matches!(f, AtomicFunction::CompareExchange) { 2 } else { 1 }, active);
        }
        let kind = match f {
            AtomicFunction::Load => Kind::AtomicLoad,
            AtomicFunction::Store => Kind::AtomicStore,
            _ => Kind::Atomic,
        };
        self.track(global, place, (0, 4), kind, site);
        self.counts.atomic_operations += self.list.len() as u64;
        self.count_access(global, 0, 4, kind != Kind::AtomicLoad, site);
        let region = self.regions[global].clone();
        for k in 0..self.list.len() {
            let lane = usize::from(self.list[k]);
            let at = region.offset + self.addresses[lane] as usize;
            let old = word_at(self.bytes(region.buffer), at);
            let operand = self.word(value, lane);
            let exchanged = old == self.word(compare, lane);
            let new = match f {
                AtomicFunction::Load => old,
                AtomicFunction::Store | AtomicFunction::Exchange => operand,
                AtomicFunction::Combine(f) => crate::math::of_words(f, old, operand),
                AtomicFunction::CompareExchange => {
                    if exchanged {
                        operand
                    } else {
                        old
                    }
                }
            };
            if kind != Kind::AtomicLoad {
                self.write_bytes(region.buffer, at, &new.to_le_bytes());
            }
            if let Some(result) = result {
                self.set(result, lane, old);
                if matches!(f, AtomicFunction::CompareExchange) {
                    self.set(result + 1, lane, u32::from(exchanged));
                }
            }
        }
    }

    pub fn bytes(&self, buffer: Option<usize>) -> &[u8] {
        match buffer {
            Some(buffer) => &self.buffers[buffer].bytes,
            None => &self.memory,
        }
    }

    pub fn write_bytes(&mut self, buffer: Option<usize>, at: usize, value: &[u8]) {
        let range = at..at + value.len();
        match buffer {
            Some(buffer) => {
                self.buffers[buffer].bytes[range.clone()].copy_from_slice(value);
                self.buffers[buffer].written[range].fill(true);
            }
            None => self.memory[range].copy_from_slice(value),
        }
    }
}

/// What an access does.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Load,
    Store,
    AtomicLoad,
    AtomicStore,
    /// Reads and writes.
    Atomic,
}

pub(crate) fn word_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

pub(crate) fn half_at(bytes: &[u8], at: usize) -> f32 {
    bytes[at..].first_chunk().map_or(0.0, |bytes| f16::from_le_bytes(*bytes).to_f32())
}
