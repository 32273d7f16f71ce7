//! What a run finds: faults and counts.

use std::collections::BTreeMap;
use std::fmt;

/// What a GPU would punish.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum FaultKind {
    /// Two lanes of a workgroup touch the same byte without a barrier of the right scope between, and at least one of them writes.
    Race,
    /// A workgroup writes a byte of a storage buffer that another workgroup of the run touches.
    RaceBetweenWorkgroups,
    /// Workgroup memory that this workgroup has not written, or bytes of a buffer that nobody has.
    Uninitialised,
    /// An index beyond an array, a vector, a matrix or a binding, read or written.
    OutOfRange,
    /// A barrier that not all lanes of the workgroup reach together, or an operation of a subgroup that not all of its lanes do.
    NonUniformBarrier,
    /// An integer division by zero, or one whose quotient has no room.
    DivisionByZero,
    /// A shift by as many bits as the value has, or more.
    ShiftOverflow,
    /// A float that the integer type it is converted to does not have: out of range or not a number.
    ConversionOutOfRange,
    /// The limit of steps was passed; the workgroup was left.
    Endless,
}

/// A fault: the first of its kind at its place in the source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What is wrong.
    pub kind: FaultKind,
    /// Line number and source text, the variable and index, the lanes involved.
    pub at: String,
    /// The workgroup that met it first.
    pub workgroup: [u32; 3],
    /// How often it was met, in all workgroups that ran.
    pub times: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let what = match self.kind {
            FaultKind::Race => "Lanes race",
            FaultKind::RaceBetweenWorkgroups => "Workgroups race",
            FaultKind::Uninitialised => "Memory is read that was never written",
            FaultKind::OutOfRange => "An access is out of range",
            FaultKind::NonUniformBarrier => "Lanes that must act together do not",
            FaultKind::DivisionByZero => "An integer division has no result",
            FaultKind::ShiftOverflow => "A shift is too far",
            FaultKind::ConversionOutOfRange => "A float does not fit the integer it becomes",
            FaultKind::Endless => "The limit of steps is passed",
        };
        let [x, y, z] = self.workgroup;
        write!(f, "{what} in {} (workgroup {x}, {y}, {z}; met {} times).", self.at, self.times)
    }
}

/// The accesses of a subgroup instruction to one bank that needed most cycles.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// Cycles of the worst phase of the instruction; 1 is free of conflicts.
    pub ways: u32,
    /// Line of the source, and its text.
    pub line: u32,
    pub source: String,
}

/// Counts of one line of the source; fields as in [`Counts`].
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct LineCounts {
    pub instructions: u64,
    pub float_operations: u64,
    pub integer_operations: u64,
    pub global_load_sectors: u64,
    pub global_store_sectors: u64,
    pub bank_cycles: u64,
    pub bank_cycles_ideal: u64,
    pub matrix_products: u64,
}

/// What was done, summed over the workgroups that ran.
///
/// A "subgroup instruction" is one load or store of a scalar or a vector that the active lanes of a subgroup execute together;
/// larger values are moved by several.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Workgroups that ran, and lanes of them.
    pub workgroups: u64,
    pub invocations: u64,
    /// Barriers executed, once a workgroup.
    pub barriers: u64,
    /// Sectors of storage memory that each subgroup instruction touches, summed; cooperative accesses and atomics are among them.
    pub global_load_sectors: u64,
    pub global_store_sectors: u64,
    /// Bytes of storage memory as the lanes ask for them. Cooperative accesses are counted apart.
    pub global_load_bytes: u64,
    pub global_store_bytes: u64,
    /// Bytes that lanes read of uniform buffers.
    pub uniform_bytes: u64,
    /// Bytes of workgroup memory as the lanes ask for them. Cooperative accesses are counted apart.
    pub workgroup_load_bytes: u64,
    pub workgroup_store_bytes: u64,
    /// Subgroup instructions on workgroup memory, cooperative ones too.
    pub workgroup_accesses: u64,
    /// Cycles that they take, cooperative ones too: lanes are served in phases of as many bytes as the banks deliver together; a
    /// phase takes as many cycles as the bank with the most different words.
    pub bank_cycles: u64,
    /// Cycles without conflicts: the phases.
    pub bank_cycles_ideal: u64,
    /// The phase that took most cycles.
    pub worst_conflict: Option<Conflict>,
    /// Additions, subtractions, multiplications, divisions and remainders of floats, by components; a fused multiply-add is 2.
    pub float_operations: u64,
    /// Other functions of floats (roots, exponentials, ...), by components. Comparisons, minima and conversions are not counted.
    pub special_operations: u64,
    /// Arithmetic, bit operations and shifts of integers, by components; not the arithmetic of addresses.
    pub integer_operations: u64,
    /// Cooperative multiply-adds, one a subgroup.
    pub matrix_products: u64,
    /// Twice the product of the three sizes for each.
    pub matrix_flops: u64,
    /// Bytes of cooperative loads and stores, each byte once a subgroup.
    pub cooperative_load_bytes: u64,
    pub cooperative_store_bytes: u64,
    /// Atomic operations of lanes.
    pub atomic_operations: u64,
    /// Expressions and statements of the intermediate representation, once a subgroup with an active lane.
    pub instructions: u64,
    /// Operations on scalars that active lanes executed: the work of the interpreter itself.
    pub lane_operations: u64,
    /// Some of the counts by line of the source.
    pub by_line: BTreeMap<u32, LineCounts>,
}

/// What a run found.
#[derive(Clone, Default, Debug)]
pub struct Report {
    /// The faults, in the order in which they were met; at most as many as the options say.
    pub faults: Vec<Fault>,
    /// Places with faults beyond those that are kept.
    pub dropped_faults: u64,
    pub counts: Counts,
}
