//! The time of a dispatch, from what its workgroups do and what the hardware can do. The module's page says how.

use super::adapters::{Adapter, Hardware};
use super::count::Count;
use super::efficiency::Efficiency;
use crate::compute::device::cost::{Unit, Work};
use serde::Serialize;

/// What a dispatch waits for most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// The matrix units.
    Matrix,
    /// Single multiply-adds.
    Arithmetic,
    /// Instructions beside the arithmetic.
    Issue,
    /// Workgroup memory.
    WorkgroupMemory,
    /// The last cache.
    L2,
    /// The memory.
    GlobalMemory,
    /// Steps that wait for one another, in workgroups too few to fill the multiprocessors.
    SerialSteps,
    /// The start of the dispatch, and the barrier after it.
    Dispatch,
}

impl Bound {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Bound::Matrix => "matrix units",
            Bound::Arithmetic => "arithmetic",
            Bound::Issue => "issue",
            Bound::WorkgroupMemory => "workgroup memory",
            Bound::L2 => "L2",
            Bound::GlobalMemory => "memory",
            Bound::SerialSteps => "serial steps",
            Bound::Dispatch => "dispatch",
        }
    }
}

/// One dispatch on paper.
#[derive(Clone, Copy, Debug)]
pub struct Estimate {
    /// Its time.
    pub seconds: f64,
    /// What it waits for most.
    pub bound: Bound,
    /// Workgroups by those that the multiprocessors hold at a time.
    pub waves: f64,
}

/// Registers of an invocation beside its sums. Mesa's NVIDIA compiler has 24 to 56 more than sums, and up to 104 for the largest
/// tiles.
const OTHER_REGISTERS: f64 = 48.0;
/// A load that all lanes make at one place occupies workgroup memory for a clock, as one of 128 bytes does, and brings each of 32
/// lanes 16 bytes.
const BROADCAST: f64 = 0.25;
/// Share of the last cache that holds what the kernel before has written.
const WARM: f64 = 0.5;

/// Clocks of a workgroup, by what it needs. With `alone` on a multiprocessor a workgroup of few subgroups leaves some of its
/// schedulers without work.
#[derive(Clone, Copy)]
struct Clocks {
    unit: Unit,
    arithmetic: f64,
    issue: f64,
    workgroup_memory: f64,
}

impl Clocks {
    fn of(work: &Work, passes: f64, count: &Count, adapter: &Adapter, e: &Efficiency, alone: bool) -> Self {
        let (h, i) = (&adapter.hardware, &adapter.instructions);
        let invocations = f64::from(count.cost.invocations);
        let subgroups = (invocations / h.subgroup).ceil();
        // Lanes without an invocation are issued all the same.
        let filled = subgroups * h.subgroup / invocations;
        let spread = if alone { (subgroups / h.schedulers).ceil() * h.schedulers / subgroups } else { 1.0 };
        let matrix = count.cost.unit == Unit::Matrix;
        let (products, rate, share) = match matrix {
            true => (work.flops / 2.0 / h.matrix_products * h.subgroup, h.matrix_flops, e.matrix),
            false => (work.flops / 2.0, h.f32_flops, e.arithmetic),
        };
        let others = work.vectors * i.vector
            + work.staged * i.staged
            + work.lookups * i.lookup
            + work.fragments * i.fragment
            + work.shared * i.shared
            + work.shuffles * i.shuffle
            + invocations * if count.plain { i.plain } else { passes * i.pass };
        let padding = if matrix { 1.0 } else { filled };
        let moved = work.read + work.written - (1.0 - BROADCAST) * work.broadcast;
        Self {
            unit: count.cost.unit,
            arithmetic: work.flops * padding * spread / (rate / f64::from(h.multiprocessors) / h.clock) / share,
            issue: (products * padding + others * filled) * spread / h.lanes / e.issue,
            workgroup_memory: moved / h.workgroup_rate / e.workgroup_memory,
        }
    }

    /// All together. Between barriers one follows the other, but for what other workgroups fill in; else one stream of
    /// instructions overlaps all.
    fn together(&self, barriers: bool, overlap: f64) -> f64 {
        let all = match self.unit {
            Unit::Matrix => [self.arithmetic, self.issue, self.workgroup_memory],
            // Multiply-adds of single invocations are instructions: one does not wait for the other.
            Unit::Scalar => [self.arithmetic.max(self.issue), 0.0, self.workgroup_memory],
        };
        let most = all.into_iter().fold(0.0, f64::max);
        if barriers { most + (1.0 - overlap) * (all.iter().sum::<f64>() - most) } else { most }
    }

    fn bound(&self) -> Bound {
        let arithmetic = if self.unit == Unit::Matrix { Bound::Matrix } else { Bound::Arithmetic };
        let all = [
            (self.issue, Bound::Issue),
            (self.workgroup_memory, Bound::WorkgroupMemory),
            (self.arithmetic, arithmetic),
        ];
        all.into_iter().fold((0.0, Bound::Issue), |most, one| if one.0 > most.0 { one } else { most }).1
    }
}

/// Workgroups of a kernel that a multiprocessor holds at a time.
fn resident(count: &Count, h: &Hardware) -> f64 {
    let cost = &count.cost;
    let invocations = (f64::from(cost.invocations) / h.subgroup).ceil() * h.subgroup;
    let registers = (f64::from(cost.sums) + OTHER_REGISTERS) * invocations;
    let memory = f64::from(cost.workgroup_memory).max(1.0);
    let rooms = [h.resident_workgroups, h.resident_invocations / invocations, h.registers / registers];
    rooms.into_iter().fold(h.resident_memory / memory, f64::min).floor().max(1.0)
}

/// The time of one dispatch.
pub fn estimate(count: &Count, adapter: &Adapter, e: &Efficiency) -> Estimate {
    let h = &adapter.hardware;
    let cost = &count.cost;
    let work = &count.work;
    let longest = cost.once.plus(count.passes[1], cost.pass);
    let barriers = longest.barriers > 0.0;
    let room = resident(count, h);
    let shared = Clocks::of(work, count.passes[0], count, adapter, e, false);
    let busy = shared.together(barriers, e.overlap);
    let alone = Clocks::of(&longest, count.passes[1], count, adapter, e, true).together(barriers, 0.0);
    let waiting = longest.waits * h.latency * (1.0 - e.cache) + longest.barriers * h.barrier;
    let chain = alone + waiting * e.latency;

    // The busiest multiprocessor has so many workgroups, `room` at a time.
    let multiprocessors = f64::from(h.multiprocessors);
    let each = (count.workgroups / multiprocessors).ceil();
    let (rounds, rest) = ((each / room).floor(), each % room);
    let round = |workgroups: f64| if workgroups > 0.0 { (workgroups * busy).max(chain) } else { 0.0 };
    let computing = (rounds * round(room) + round(rest)) / h.clock;

    let cached = count.workgroups * work.asked * (1.0 - e.cache);
    let warm = count.bytes < WARM * h.l2_size;
    let l2 = cached.max(count.bytes) / (h.l2_rate * e.l2);
    let memory = if warm { 0.0 } else { count.bytes / (h.memory_rate * e.global_memory) };
    let start = h.dispatch_seconds * e.dispatch;

    let body = computing.max(l2).max(memory);
    let few = count.workgroups < multiprocessors;
    let bound = match body {
        _ if start > body => Bound::Dispatch,
        _ if body == memory => Bound::GlobalMemory,
        _ if body == l2 => Bound::L2,
        _ if few || chain > room.min(each) * busy => Bound::SerialSteps,
        _ => shared.bound(),
    };
    Estimate { seconds: body + start, bound, waves: count.workgroups / (multiprocessors * room) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::device::cost::{Cost, Passes};

    /// The forward pass of 64 to 64 channels by matrices at 80³: 4,000 workgroups of 54 passes.
    fn convolution() -> Count {
        let pass = Work {
            flops: 524_288.0,
            asked: 16_384.0,
            staged: 1536.0,
            lookups: 64.0,
            read: 24_576.0,
            written: 12_288.0,
            fragments: 1536.0,
            barriers: 2.0,
            waits: 1.0,
            ..Work::default()
        };
        let once = Work { asked: 16_384.0, vectors: 2048.0, waits: 1.0, ..Work::default() };
        let cost = Cost {
            invocations: 128,
            workgroup_memory: 25_088,
            sums: 64,
            unit: Unit::Matrix,
            once,
            pass,
            passes: Passes::fixed(54),
        };
        Count {
            dispatches: 1,
            operator: "conv3d",
            layer: String::new(),
            workgroups: 4000.0,
            flops: 4000.0 * 54.0 * pass.flops,
            bytes: 131e6,
            work: once.plus(54.0, pass),
            passes: [54.0; 2],
            cost,
            plain: false,
        }
    }

    fn changed(change: fn(&mut Cost)) -> Count {
        let mut count = convolution();
        change(&mut count.cost);
        count.work = count.cost.once.plus(count.passes[0], count.cost.pass);
        count
    }

    fn seconds(count: &Count) -> f64 {
        let adapter = Adapter::find("h100").unwrap();
        estimate(count, &adapter, &adapter.efficiency).seconds
    }

    #[test]
    fn less_of_anything_is_never_slower_and_what_binds_is_faster() {
        let before = seconds(&convolution());
        type Change = (&'static str, fn(&mut Cost));
        let less: [Change; 9] = [
            ("operations", |c| c.pass.flops /= 2.0),
            ("asked", |c| c.pass.asked /= 2.0),
            ("staged", |c| c.pass.staged /= 2.0),
            ("lookups", |c| c.pass.lookups = 0.0),
            ("workgroup memory", |c| (c.pass.read, c.pass.written) = (c.pass.read / 3.0, c.pass.written / 3.0)),
            ("fragments", |c| c.pass.fragments /= 2.0),
            ("barriers", |c| c.pass.barriers = 0.25),
            ("waits", |c| c.pass.waits = 0.0),
            ("memory held", |c| c.workgroup_memory /= 2),
        ];
        for (what, change) in less {
            let after = seconds(&changed(change));
            assert!(after <= before, "{what}: {after} from {before}");
            if ["operations", "staged", "workgroup memory", "fragments"].contains(&what) {
                assert!(after < 0.97 * before, "{what}: {after} from {before}");
            }
        }
    }

    #[test]
    fn few_workgroups_wait_for_their_steps() {
        let few = Count { workgroups: 5.0, bytes: 1e6, ..convolution() };
        let adapter = Adapter::find("h100").unwrap();
        let found = estimate(&few, &adapter, &adapter.efficiency);
        assert_eq!(found.bound, Bound::SerialSteps);
        // One more on each multiprocessor is free, and what waits less is faster.
        assert_eq!(seconds(&Count { workgroups: 132.0, bytes: 1e6, ..convolution() }), found.seconds);
        let prefetched =
            Count { workgroups: 5.0, bytes: 1e6, ..changed(|c| (c.pass.waits, c.pass.barriers) = (0.0, 1.0)) };
        assert!(seconds(&prefetched) < 0.95 * found.seconds);
    }

    #[test]
    fn wider_workgroups_fill_a_multiprocessor() {
        // As many invocations in half as many workgroups, where registers and places are for few: what a workgroup holds is shared.
        let narrow = changed(|c| (c.workgroup_memory, c.pass.waits) = (110_000, 20.0));
        let mut wide = narrow.clone();
        wide.cost.invocations *= 2;
        (wide.cost.once, wide.cost.pass) =
            (Work::default().plus(2.0, wide.cost.once), Work::default().plus(2.0, wide.cost.pass));
        (wide.cost.once.waits, wide.cost.pass.waits, wide.cost.pass.barriers) = (1.0, 20.0, 2.0);
        wide.work = wide.cost.once.plus(54.0, wide.cost.pass);
        wide.workgroups /= 2.0;
        assert!(seconds(&wide) < 0.8 * seconds(&narrow), "{} {}", seconds(&wide), seconds(&narrow));
    }

    #[test]
    fn memory_and_the_start_of_a_dispatch_bind() {
        let plain = |workgroups: f64, bytes: f64| Count {
            workgroups,
            bytes,
            flops: 0.0,
            work: Work { asked: bytes / workgroups, waits: 2.0, ..Work::default() },
            cost: Cost { invocations: 64, once: Work { waits: 2.0, ..Work::default() }, ..convolution().cost },
            passes: [0.0; 2],
            plain: true,
            ..convolution()
        };
        let adapter = Adapter::find("h100").unwrap();
        let large = estimate(&plain(1e6, 1e9), &adapter, &adapter.efficiency);
        assert_eq!(large.bound, Bound::GlobalMemory);
        assert!((large.seconds - 1e9 / (3.35e12 * 0.85) - 5e-6).abs() < 1e-9);
        assert_eq!(estimate(&plain(10.0, 1e3), &adapter, &adapter.efficiency).bound, Bound::Dispatch);
    }
}
