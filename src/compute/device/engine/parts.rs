//! Parts of dispatches that would take longer than a watchdog waits.

use crate::compute::device::Workgroups;

/// A box of the workgroups of a dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    first: [u32; 3],
    count: [u32; 3],
    /// Workgroups of the whole, where they are known before it runs.
    whole: Option<[u32; 3]>,
}

/// A dispatch is divided into so many parts at most: each has a place in a uniform buffer.
const MOST_PARTS: u64 = 1 << 16;

fn product(n: [u32; 3]) -> u64 {
    n.into_iter().map(u64::from).product()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Part {
    /// Parts of a dispatch that take at most `budget` of its `seconds` each, as far as workgroups can be divided: `together` of them
    /// run at the same time, so that fewer would take as long. None where it need not be, or cannot be, divided.
    ///
    /// Parts are as few and as equal as they can be, of multiples of `together` workgroups where there is room for one: processors
    /// share those without a rest.
    pub fn divide(workgroups: &Workgroups, seconds: f64, budget: f64, together: u64) -> Vec<Self> {
        let most = workgroups.most();
        let total = product(most);
        if seconds <= budget || total <= together {
            return Vec::new();
        }
        let mut room = ((total as f64 * budget / seconds) as u64).max(total.div_ceil(MOST_PARTS)).max(together);
        let is_dynamic = matches!(workgroups, Workgroups::PerBlock { .. });
        let mut count = [1; 3];
        let mut below = 1;
        for axis in 0..3 {
            // Where x is folded into y, a shader counts on in the next row: it must know how long a row is.
            let is_row = axis == 0 && is_dynamic && most[1] > 1;
            if is_row || room >= u64::from(most[axis]) {
                count[axis] = most[axis];
                room = (room / u64::from(most[axis])).max(1);
                below *= u64::from(most[axis]);
            } else {
                let along = u64::from(most[axis]);
                let equal = along.div_ceil(along.div_ceil(room));
                let shared = together / gcd(together, below);
                let fits = |n: u64| (1..=room).contains(&n);
                let rounded = [equal.next_multiple_of(shared), room / shared * shared];
                count[axis] = rounded.into_iter().find(|n| fits(*n)).unwrap_or(equal) as u32;
                room = 1;
            }
        }
        if count == most {
            return Vec::new();
        }
        let whole = (!is_dynamic).then_some(most);
        let starts = |axis: usize| (0..most[axis]).step_by(count[axis] as usize);
        let part = |[x, y, z]: [u32; 3]| Self { first: [x, y, z], count, whole };
        starts(2).flat_map(|z| starts(1).flat_map(move |y| starts(0).map(move |x| part([x, y, z])))).collect()
    }

    /// The workgroups of this part where the whole dispatch has `groups`.
    pub fn of(&self, groups: [u32; 3]) -> [u32; 3] {
        std::array::from_fn(|a| groups[a].saturating_sub(self.first[a]).min(self.count[a]))
    }

    /// Itself with the part after it, where both together are a box that one dispatch can be.
    pub fn joined(&self, next: &Self) -> Option<Self> {
        let axis = (0..3).find(|&a| self.first[a] != next.first[a])?;
        let same = |a: usize| self.first[a] == next.first[a] && self.count[a] == next.count[a];
        let follows = next.first[axis] == self.first[axis] + self.count[axis];
        let joins = follows && (0..3).all(|a| a == axis || same(a));
        let mut both = *self;
        both.count[axis] += next.count[axis];
        joins.then_some(both)
    }

    /// The share of a dispatch of `groups` that it is.
    pub fn share(&self, groups: [u32; 3]) -> f64 {
        product(self.of(groups)) as f64 / product(groups).max(1) as f64
    }

    /// What its shader is told: `DispatchPart` of `shaders.rs`.
    pub fn uniform(&self) -> [u32; 8] {
        let ([x, y, z], [wx, wy, wz]) = (self.first, self.whole.unwrap_or_default());
        [x, y, z, 0, wx, wy, wz, 0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::device::Dynamic;
    use std::collections::BTreeSet;

    fn covered(parts: &[Part], groups: [u32; 3]) -> BTreeSet<[u32; 3]> {
        let mut found = BTreeSet::new();
        for part in parts {
            let n = part.of(groups);
            for at in 0..product(n) as u32 {
                let [x, y, z] = [at % n[0], at / n[0] % n[1], at / n[0] / n[1]];
                let new = found.insert([x + part.first[0], y + part.first[1], z + part.first[2]]);
                assert!(new, "a workgroup is in two parts");
            }
        }
        assert_eq!(found.len() as u64, product(groups));
        found
    }

    #[test]
    fn parts_cover_every_workgroup_once_and_keep_to_the_budget() {
        for (most, seconds) in [
            ([100, 1, 4], 0.95),
            ([513, 7, 2], 1.0),
            ([3, 1, 27], 0.3),
            ([8, 1, 4], 3.0),
            ([16, 4, 1], 1.7),
            ([512, 1, 1], 0.11),
        ] {
            let parts = Part::divide(&Workgroups::Fixed(most), seconds, 0.1, 1);
            covered(&parts, most);
            let shares: Vec<f64> = parts.iter().map(|p| p.share(most)).collect();
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            assert!(shares.iter().all(|share| share * seconds <= 0.1 || share * product(most) as f64 <= 1.0));
            assert_eq!(parts[0].whole, Some(most));
        }
        for (most, seconds) in [([1, 1, 1], 9.0), ([8, 1, 1], 0.05)] {
            assert_eq!(Part::divide(&Workgroups::Fixed(most), seconds, 0.1, 1), []);
        }
        let of_four = Part::divide(&Workgroups::Fixed([2, 1, 8]), 9.0, 0.1, 4);
        assert_eq!(of_four.iter().map(|p| p.count).collect::<Vec<_>>(), [[2, 1, 2]; 4]);
        assert_eq!(Part::divide(&Workgroups::Fixed([2, 1, 2]), 9.0, 0.1, 4), []);
        // Room for 13 of 100: nine parts of 12 that two processors share, rather than 13 of 8.
        let of_two = Part::divide(&Workgroups::Fixed([100, 1, 1]), 0.75, 0.1, 2);
        assert_eq!(
            of_two.iter().map(|p| p.of([100, 1, 1])[0]).collect::<Vec<_>>(),
            [[12; 8].as_slice(), &[4]].concat()
        );
        // Eight rows of three are shared by four, ten are not.
        let of_threes = Part::divide(&Workgroups::Fixed([3, 40, 1]), 1.0, 0.25, 4);
        assert_eq!(of_threes.iter().map(|p| p.count).collect::<Vec<_>>(), [[3, 8, 1]; 5]);
        assert!(Part::divide(&Workgroups::Fixed([64_823, 2, 1]), 1e9, 1e-9, 1).len() as u64 <= MOST_PARTS);
    }

    #[test]
    fn neighbours_can_be_one_dispatch() {
        let most = [40, 3, 2];
        let parts = Part::divide(&Workgroups::Fixed(most), 1.0, 0.05, 1);
        assert_eq!(parts[0].count, [10, 1, 1]);
        let mut joined: Vec<Part> = Vec::new();
        for part in &parts {
            match joined.last().and_then(|last| last.joined(part)) {
                Some(both) => *joined.last_mut().unwrap() = both,
                None => joined.push(*part),
            }
        }
        // A row each: the next one does not follow its end.
        assert_eq!(joined.len(), 6);
        assert_eq!(covered(&joined, most), covered(&parts, most));
        assert_eq!((parts[1].joined(&parts[0]), parts[0].joined(&parts[2])), (None, None));
    }

    /// Fewer visible blocks: the last parts have less to do, or nothing.
    #[test]
    fn parts_of_what_is_visible() {
        for (per_block, z, seconds) in [(1000, 3, 0.35), (4_000_000, 2, 0.7)] {
            let groups = Workgroups::PerBlock { mask: 0, capacity: 32, per_block, per_group: 64, z };
            let parts = Part::divide(&groups, seconds, 0.1, 1);
            assert!(parts.len() > 1 && parts[0].whole.is_none());
            for visible in [32, 9, 1] {
                let now = groups.resolve(&Dynamic { visible: vec![visible], flags: vec![] });
                let of_all: u64 = parts.iter().map(|p| product(p.of(now))).sum();
                assert_eq!(of_all, product(now), "{visible} blocks");
                // Rows are as long in a part as in the whole, where there are several.
                assert!(now[1] == 1 || parts.iter().all(|p| p.of(now)[0] == now[0] || p.of(now)[1] == 0));
            }
        }
    }
}
