//! Sets of lanes.

/// Lanes that a workgroup may have at most.
pub(crate) const MOST_LANES: usize = 1024;
const WORDS: usize = MOST_LANES / 64;

/// A set of lanes of a workgroup.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Mask([u64; WORDS]);

impl Mask {
    pub fn first(lanes: usize) -> Self {
        let mut mask = Self::default();
        for lane in 0..lanes {
            mask.insert(lane);
        }
        mask
    }

    pub fn insert(&mut self, lane: usize) {
        self.0[lane / 64] |= 1 << (lane % 64);
    }

    pub fn has(&self, lane: usize) -> bool {
        self.0[lane / 64] >> (lane % 64) & 1 == 1
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub fn or(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|k| self.0[k] | other.0[k]))
    }

    pub fn without(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|k| self.0[k] & !other.0[k]))
    }

    /// The lanes of `self` where `holds`.
    pub fn filter(&self, mut holds: impl FnMut(usize) -> bool) -> Self {
        let mut out = Self::default();
        for lane in self.iter() {
            if holds(lane) {
                out.insert(lane);
            }
        }
        out
    }

    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().filter(|(_, word)| **word != 0).flat_map(|(k, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                if rest == 0 {
                    return None;
                }
                let bit = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                Some(k * 64 + bit)
            })
        })
    }
}

/// The lanes that execute an instruction, with what is asked of them often.
#[derive(Clone)]
pub(crate) struct Active {
    pub mask: Mask,
    /// All active lanes are in `low..high`.
    pub low: usize,
    pub high: usize,
    pub count: usize,
    /// Subgroups with an active lane.
    pub subgroups: u32,
}

impl Active {
    pub fn new(mask: Mask, subgroup_size: usize) -> Self {
        let (mut low, mut high, mut count, mut subgroups, mut last) = (0, 0, 0, 0, usize::MAX);
        for lane in mask.iter() {
            if count == 0 {
                low = lane;
            }
            high = lane + 1;
            count += 1;
            if lane / subgroup_size != last {
                last = lane / subgroup_size;
                subgroups += 1;
            }
        }
        Self { mask, low, high, count, subgroups }
    }

    /// Whether every lane of `low..high` is active.
    pub fn is_dense(&self) -> bool {
        self.count == self.high - self.low
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}
