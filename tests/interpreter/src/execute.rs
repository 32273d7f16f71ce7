//! Runs a workgroup in lock step: every operation is executed by all active lanes before the next.

use crate::mask::{Active, Mask};
use crate::math;
use crate::memory::{Now, Region, Shadow};
use crate::program::{Check, Function, Node, Op, Program, Slot};
use crate::report::{Counts, FaultKind, LineCounts};
use crate::{Buffer, Options};

/// The workgroup is left.
pub(crate) struct Stop;

/// Lanes that left a block early.
#[derive(Default)]
struct Flow {
    broke: Mask,
    continued: Mask,
}

/// The state of a run.
pub(crate) struct Machine<'a> {
    pub program: &'a Program,
    pub options: &'a Options,
    pub buffers: &'a mut [Buffer],
    pub regions: Vec<Region>,
    pub shadows: Vec<Shadow>,
    /// Workgroup memory.
    pub memory: Vec<u8>,
    pub registers: Vec<u32>,
    /// Cooperative matrices: for each, one a subgroup, of 256 elements.
    pub matrices: Vec<f32>,
    /// Registers have this many words, the lanes of a workgroup rounded up.
    pub width: usize,
    pub all: Mask,
    /// Lanes that have returned from the entry point.
    pub exited: Mask,
    pub subgroup_size: usize,
    pub subgroups: usize,
    pub workgroups: [u32; 3],
    pub workgroup: [u32; 3],
    pub clock: u32,
    pub first_epoch: u32,
    pub storage_epoch: u32,
    pub workgroup_epoch: u32,
    pub steps: u64,
    pub counts: Counts,
    /// By site.
    pub by_site: Vec<LineCounts>,
    /// How often each run was executed, by subgroups and by lanes.
    pub executed: Vec<(u64, u64)>,
    pub faults: crate::faults::Log,
    /// Addresses of the lanes of the current access, and those lanes.
    pub addresses: Vec<u32>,
    pub list: Vec<u16>,
    pub scratch: Vec<u32>,
}

impl<'a> Machine<'a> {
    pub fn storage_now(&self) -> Now {
        Now { epoch: self.storage_epoch, first: self.first_epoch, shared: true }
    }

    pub fn workgroup_now(&self) -> Now {
        Now { epoch: self.workgroup_epoch, first: self.first_epoch, shared: false }
    }

    pub fn register(&self, slot: Slot) -> &[u32] {
        &self.registers[slot as usize * self.width..][..self.width]
    }

    pub fn word(&self, slot: Slot, lane: usize) -> u32 {
        self.registers[slot as usize * self.width + lane]
    }

    pub fn set(&mut self, slot: Slot, lane: usize, word: u32) {
        self.registers[slot as usize * self.width + lane] = word;
    }

    /// Runs the entry point for one workgroup.
    pub fn run_workgroup(&mut self, workgroup: [u32; 3]) {
        let program = self.program;
        self.workgroup = workgroup;
        self.clock += 1;
        (self.first_epoch, self.storage_epoch, self.workgroup_epoch) = (self.clock, self.clock, self.clock);
        self.steps = 0;
        self.exited = Mask::default();
        // Not numbers, if somebody reads them after all.
        self.memory.fill(0xff);
        self.counts.workgroups += 1;
        self.counts.invocations += self.all.count() as u64;
        for (slot, from) in &program.privates {
            let word = self.word(*from, 0);
            self.fill(*slot, word);
        }
        self.set_builtins();
        let Some(entry) = program.functions.last() else { return };
        let active = Active::new(self.all, self.subgroup_size);
        // A workgroup that is left has said so.
        let _ = self.function(entry, &active, true);
    }

    fn fill(&mut self, slot: Slot, word: u32) {
        let start = slot as usize * self.width;
        self.registers[start..start + self.width].fill(word);
    }

    fn set_builtins(&mut self) {
        use naga::BuiltIn;
        let program = self.program;
        let [x, y, _] = program.workgroup_size;
        let size = self.subgroup_size as u32;
        for (slot, builtin, component) in &program.builtins {
            let k = *component as usize;
            for lane in 0..self.width {
                let index = lane as u32;
                let local = [index % x, index / x % y, index / (x * y)];
                let word = match builtin {
                    BuiltIn::LocalInvocationIndex => index,
                    BuiltIn::LocalInvocationId => local[k],
                    BuiltIn::WorkGroupId => self.workgroup[k],
                    BuiltIn::NumWorkGroups => self.workgroups[k],
                    BuiltIn::WorkGroupSize => program.workgroup_size[k],
                    BuiltIn::GlobalInvocationId => {
                        self.workgroup[k].wrapping_mul(program.workgroup_size[k]).wrapping_add(local[k])
                    }
                    BuiltIn::SubgroupId => index / size,
                    BuiltIn::SubgroupInvocationId => index % size,
                    BuiltIn::SubgroupSize => size,
                    BuiltIn::NumSubgroups => self.subgroups as u32,
                    _ => 0,
                };
                self.set(*slot, lane, word);
            }
        }
    }

    /// Copies a register; of the active lanes only.
    fn copy(&mut self, to: Slot, from: Slot, active: &Active) {
        let (to, from) = (to as usize * self.width, from as usize * self.width);
        if active.is_dense() {
            self.registers.copy_within(from + active.low..from + active.high, to + active.low);
        } else {
            for lane in active.mask.iter() {
                self.registers[to + lane] = self.registers[from + lane];
            }
        }
    }

    fn function(&mut self, function: &'a Function, active: &Active, is_entry: bool) -> Result<(), Stop> {
        for (to, from) in &function.start {
            self.copy(*to, *from, active);
        }
        for matrix in &function.zero_matrices {
            self.zero_matrix(*matrix, active);
        }
        self.nodes(&function.body, active.clone(), &mut Flow::default(), is_entry)?;
        Ok(())
    }

    fn active(&self, mask: Mask) -> Active {
        Active::new(mask, self.subgroup_size)
    }

    fn holds(&self, condition: Slot, active: &Active) -> Mask {
        let register = self.register(condition);
        active.mask.filter(|lane| register[lane] != 0)
    }

    /// Runs nodes one after another; what is left are the lanes that reach the end.
    fn nodes(&mut self, nodes: &'a [Node], mut active: Active, flow: &mut Flow, entry: bool) -> Result<Mask, Stop> {
        for node in nodes {
            let rest = match node {
                Node::Run { ops, run } => {
                    self.steps += ops.len() as u64;
                    let executed = &mut self.executed[*run];
                    executed.0 += u64::from(active.subgroups);
                    executed.1 += active.count as u64;
                    for op in ops {
                        self.operation(op, &active);
                    }
                    continue;
                }
                Node::If { condition, accept, reject } => {
                    let yes = self.holds(*condition, &active);
                    let no = active.mask.without(&yes);
                    if no.is_empty() {
                        self.nodes(accept, active.clone(), flow, entry)?
                    } else if yes.is_empty() {
                        self.nodes(reject, active.clone(), flow, entry)?
                    } else {
                        let first = self.nodes(accept, self.active(yes), flow, entry)?;
                        first.or(&self.nodes(reject, self.active(no), flow, entry)?)
                    }
                }
                Node::Loop { body, continuing, break_if, site } => {
                    self.repeat((body, continuing, *break_if), *site, &active, entry)?
                }
                Node::Switch { selector, cases } => {
                    let mut rest = Mask::default();
                    let mut inner = Flow::default();
                    let register: Vec<u32> = self.register(*selector).to_vec();
                    let is_named = |lane: usize| cases.iter().any(|case| case.values.contains(&register[lane]));
                    for case in cases {
                        let chosen = active
                            .mask
                            .filter(|lane| case.values.contains(&register[lane]) || case.default && !is_named(lane));
                        if !chosen.is_empty() {
                            let end = self.nodes(&case.body, self.active(chosen), &mut inner, entry)?;
                            rest = rest.or(&end);
                        }
                    }
                    flow.continued = flow.continued.or(&inner.continued);
                    rest.or(&inner.broke)
                }
                Node::Break => {
                    flow.broke = flow.broke.or(&active.mask);
                    return Ok(Mask::default());
                }
                Node::Continue => {
                    flow.continued = flow.continued.or(&active.mask);
                    return Ok(Mask::default());
                }
                Node::Return { copies, matrix } => {
                    for (to, from) in copies {
                        self.copy(*to, *from, &active);
                    }
                    if let Some((to, from)) = matrix {
                        self.copy_matrix(*to, *from, &active, None);
                    }
                    if entry {
                        self.exited = self.exited.or(&active.mask);
                    }
                    return Ok(Mask::default());
                }
                Node::Call { function, copies, matrices, results, matrix } => {
                    for (to, from) in copies {
                        self.copy(*to, *from, &active);
                    }
                    for (to, from) in matrices {
                        self.copy_matrix(*to, *from, &active, None);
                    }
                    self.function(&self.program.functions[*function], &active, false)?;
                    for (to, from) in results {
                        self.copy(*to, *from, &active);
                    }
                    if let Some((to, from)) = matrix {
                        self.copy_matrix(*to, *from, &active, None);
                    }
                    continue;
                }
            };
            if rest != active.mask {
                if rest.is_empty() {
                    return Ok(rest);
                }
                active = self.active(rest);
            }
        }
        Ok(active.mask)
    }

    fn repeat(
        &mut self,
        (body, continuing, break_if): (&'a [Node], &'a [Node], Option<Slot>),
        site: u32,
        active: &Active,
        entry: bool,
    ) -> Result<Mask, Stop> {
        let mut live = active.clone();
        let mut left = Mask::default();
        while !live.is_empty() {
            self.steps += 1;
            if self.steps > self.options.step_limit {
                self.fault(FaultKind::Endless, site, |_| "in this loop".to_string());
                return Err(Stop);
            }
            let mut flow = Flow::default();
            let end = self.nodes(body, live.clone(), &mut flow, entry)?;
            left = left.or(&flow.broke);
            let mut next = end.or(&flow.continued);
            if !next.is_empty() {
                let reached = if next == live.mask { live.clone() } else { self.active(next) };
                next = self.nodes(continuing, reached, &mut Flow::default(), entry)?;
            }
            if let Some(condition) = break_if {
                let done = self.holds(condition, &self.active(next));
                left = left.or(&done);
                next = next.without(&done);
            }
            if next != live.mask {
                live = self.active(next);
            }
        }
        Ok(left)
    }

    fn operation(&mut self, op: &'a Op, active: &Active) {
        let (width, low, high) = (self.width, active.low, active.high);
        let (from, to) = (|slot: Slot| slot as usize * width + low..slot as usize * width + high, 0..high - low);
        match *op {
            Op::Unary { f, to: slot, a } => {
                let (operands, result) = self.registers.split_at_mut(slot as usize * width + low);
                math::unary(f, &mut result[to], &operands[from(a)]);
            }
            Op::Binary { f, to: slot, a, b } => {
                let (operands, result) = self.registers.split_at_mut(slot as usize * width + low);
                math::binary(f, &mut result[to], &operands[from(a)], &operands[from(b)]);
            }
            Op::Ternary { f, to: slot, a, b, c } => {
                let (operands, result) = self.registers.split_at_mut(slot as usize * width + low);
                math::ternary(f, &mut result[to], &operands[from(a)], &operands[from(b)], &operands[from(c)]);
            }
            Op::Copy { to, from } => self.copy(to, from, active),
            Op::Check { check, a, b, site } => self.check(check, a, b, active, site),
            Op::Element { to, ref from, words, index, site } => self.element(to, from, words, index, active, site),
            Op::LoadLocal { to, words, ref place, site } => self.load_local(to, words, place, active, site),
            Op::StoreLocal { ref from, ref place, site } => self.store_local(from, place, active, site),
            Op::Load { to, global, ref place, ref pieces, site } => self.load(to, global, place, pieces, active, site),
            Op::Store { ref from, global, ref place, ref pieces, site } => {
                self.store(from, global, place, pieces, active, site);
            }
            Op::Atomic { f, global, ref place, value, compare, result, site } => {
                self.atomic(f, global, place, (value, compare, result), active, site);
            }
            Op::ArrayLength { to, global } => {
                let length = self.regions[global].length;
                self.fill(to, length);
            }
            Op::Gather { f, to, ref from, index, site } => self.gather(f, to, from, index, active, site),
            Op::Ballot { to, predicate, site } => self.ballot(to, predicate, active, site),
            Op::Collect { f, to, ref from, site } => self.collect(f, to, from, active, site),
            Op::Barrier { storage, workgroup, site } => self.barrier(storage, workgroup, active, site),
            Op::CooperativeLoad(ref access) => self.cooperative_load(access, active),
            Op::CooperativeStore(ref access) => self.cooperative_store(access, active),
            Op::CooperativeMultiplyAdd { to, a, b, c, tile, half, site } => {
                self.multiply_add(to, (a, b, c), tile, half, active, site);
            }
            Op::CooperativeCopy { to, from, site } => self.copy_matrix(to, from, active, Some(site)),
        }
    }

    fn check(&mut self, check: Check, a: Slot, b: Slot, active: &Active, site: u32) {
        let (left, right) = (self.register(a), self.register(b));
        let float = |lane: usize| f32::from_bits(left[lane]);
        let fails = |lane: usize| match check {
            Check::Division { signed } => {
                right[lane] == 0 || signed && left[lane] == i32::MIN as u32 && right[lane] == u32::MAX
            }
            Check::Shift => right[lane] > 31,
            // The bounds are floats: whole numbers next to them inside are in range.
            Check::ToI32 => !(float(lane) > -2_147_483_904.0 && float(lane) < 2_147_483_648.0),
            Check::ToU32 => !(float(lane) > -1.0 && float(lane) < 4_294_967_296.0),
        };
        // Lanes that do not take part may fail: they are told apart only then.
        let mut any = false;
        for lane in active.low..active.high {
            any |= fails(lane);
        }
        if !any {
            return;
        }
        let Some(lane) = active.mask.iter().find(|lane| fails(*lane)) else { return };
        let (left, right) = (left[lane], right[lane]);
        let (kind, text) = match check {
            Check::Division { signed: true } => {
                (FaultKind::DivisionByZero, format!("{} by {}", left as i32, right as i32))
            }
            Check::Division { signed: false } => (FaultKind::DivisionByZero, format!("{left} by {right}")),
            Check::Shift => (FaultKind::ShiftOverflow, format!("by {right} bits")),
            Check::ToI32 | Check::ToU32 => (FaultKind::ConversionOutOfRange, f32::from_bits(left).to_string()),
        };
        self.fault(kind, site, |_| format!("{text}, lane {lane}"));
    }

    fn barrier(&mut self, storage: bool, workgroup: bool, active: &Active, site: u32) {
        self.counts.barriers += 1;
        let mut expected = self.all;
        if self.options.returned_lanes_may_miss_barriers {
            expected = expected.without(&self.exited);
        }
        let missing = expected.without(&active.mask);
        if let Some(lane) = missing.iter().next() {
            let (reached, of) = (active.count, expected.count());
            self.fault(FaultKind::NonUniformBarrier, site, |machine| {
                let how = if machine.exited.has(lane) { "has returned" } else { "is elsewhere" };
                format!("{reached} of {of} lanes reach the barrier, lane {lane} {how}")
            });
        }
        self.clock += 1;
        if storage {
            self.storage_epoch = self.clock;
        }
        if workgroup {
            self.workgroup_epoch = self.clock;
        }
    }
}
