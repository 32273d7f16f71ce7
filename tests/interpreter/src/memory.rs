//! Shadow memory: who touched what since when. It finds races and reads of what was never written.
//!
//! The lanes of a workgroup run in step, so the order in which they touch memory says nothing. What counts is the epoch: a clock
//! that ticks at each barrier and at the start of each workgroup. Two accesses of one epoch by different lanes are not ordered.

use crate::mask::MOST_LANES;

/// Who touches memory: a lane, a subgroup as a whole in a cooperative access, or an atomic operation of any lane.
pub(crate) type Who = u16;

const SUBGROUP: Who = MOST_LANES as Who;
pub(crate) const ATOMIC: Who = 2 * SUBGROUP;
const SEVERAL: Who = ATOMIC + 1;

pub(crate) fn subgroup(number: usize) -> Who {
    SUBGROUP + number as Who
}

/// In words.
pub(crate) fn name(who: Who) -> String {
    match who {
        ATOMIC => "an atomic operation".to_string(),
        SEVERAL => "several lanes".to_string(),
        lane if lane < SUBGROUP => format!("lane {lane}"),
        other => format!("subgroup {} together", other - SUBGROUP),
    }
}

/// What is known of a few bytes. Epoch 0 is before the run.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cell {
    write: u32,
    read: u32,
    writer: Who,
    reader: Who,
    earlier: u16,
}

// Kinds of access by earlier workgroups than the one in `read` and `write`.
const EARLIER_READ: u16 = 1;
const EARLIER_ATOMIC_READ: u16 = 2;
const EARLIER_ATOMIC_WRITE: u16 = 4;

/// When an access happens.
#[derive(Clone, Copy)]
pub(crate) struct Now {
    pub epoch: u32,
    /// The first epoch of the workgroup.
    pub first: u32,
    /// Whether accesses of other workgroups matter.
    pub shared: bool,
}

/// An access that another is not ordered against.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Conflict {
    Lanes(Who),
    Workgroups,
}

impl Cell {
    /// Whether this workgroup has written it.
    pub fn is_written(&self, now: Now) -> bool {
        self.write >= now.first
    }

    #[inline(always)]
    pub fn read(&mut self, now: Now, who: Who) -> Option<Conflict> {
        let mut conflict = None;
        if self.write == now.epoch && self.writer != who {
            conflict = Some(Conflict::Lanes(self.writer));
        } else if now.shared {
            conflict = self.read_shared(now, who);
        }
        if self.read == now.epoch {
            if self.reader != who {
                self.reader = SEVERAL;
            }
        } else {
            self.read = now.epoch;
            self.reader = who;
        }
        conflict
    }

    fn read_shared(&mut self, now: Now, who: Who) -> Option<Conflict> {
        let written = self.write != 0 && self.write < now.first && !(self.writer == ATOMIC && who == ATOMIC);
        let earlier = who != ATOMIC && self.earlier & EARLIER_ATOMIC_WRITE != 0;
        if self.read != 0 && self.read < now.first {
            self.earlier |= if self.reader == ATOMIC { EARLIER_ATOMIC_READ } else { EARLIER_READ };
        }
        (written || earlier).then_some(Conflict::Workgroups)
    }

    #[inline(always)]
    pub fn write(&mut self, now: Now, who: Who) -> Option<Conflict> {
        let mut conflict = None;
        if self.write == now.epoch && self.writer != who {
            conflict = Some(Conflict::Lanes(self.writer));
        } else if self.read == now.epoch && self.reader != who {
            conflict = Some(Conflict::Lanes(self.reader));
        } else if now.shared {
            conflict = self.write_shared(now, who);
        }
        self.write = now.epoch;
        self.writer = who;
        conflict
    }

    fn write_shared(&mut self, now: Now, who: Who) -> Option<Conflict> {
        let atomic = who == ATOMIC;
        let written = self.write != 0 && self.write < now.first;
        let read = self.read != 0 && self.read < now.first;
        let among = if atomic { EARLIER_READ } else { EARLIER_READ | EARLIER_ATOMIC_READ | EARLIER_ATOMIC_WRITE };
        let conflict = written && !(atomic && self.writer == ATOMIC)
            || read && !(atomic && self.reader == ATOMIC)
            || self.earlier & among != 0;
        if written && self.writer == ATOMIC {
            self.earlier |= EARLIER_ATOMIC_WRITE;
        }
        conflict.then_some(Conflict::Workgroups)
    }
}

/// The cells of a variable of workgroup memory or of a buffer.
pub(crate) struct Shadow {
    pub cells: Vec<Cell>,
    /// Binary logarithm of the bytes of a cell.
    pub shift: u32,
}

impl Shadow {
    pub fn new(bytes: usize, granule: u32) -> Self {
        let shift = granule.trailing_zeros();
        Self { cells: vec![Cell::default(); (bytes >> shift) + 1], shift }
    }

    /// The cells of `bytes` bytes from `at` on.
    #[inline(always)]
    pub fn of(&mut self, at: usize, bytes: usize) -> &mut [Cell] {
        &mut self.cells[at >> self.shift..(at + bytes).div_ceil(1 << self.shift)]
    }
}

/// Where a variable lies.
#[derive(Clone)]
pub(crate) struct Region {
    /// Of the buffers; None: workgroup memory.
    pub buffer: Option<usize>,
    /// Bytes from the start of the buffer or of workgroup memory.
    pub offset: usize,
    /// Bytes that may be accessed.
    pub size: u32,
    /// Elements of the runtime array.
    pub length: u32,
    /// The shadow, where races are possible.
    pub shadow: Option<usize>,
    /// What is subtracted from a place in the memory to find its cell.
    pub shadow_start: usize,
    /// Whether every byte of the buffer was written before the run.
    pub complete: bool,
}
