//! A kernel as the interpreter runs it: structured control flow around runs of operations on registers.
//!
//! A register holds one 32-bit word for every lane of the workgroup and has a number, its slot. The destination of an operation
//! always has a higher slot than its operands, which lets the borrow checker see that they do not overlap.

use crate::operations::{Binary, Ternary, Unary};
use crate::types::Piece;
use std::collections::BTreeMap;

pub(crate) type Slot = u32;

/// A place in the source that operations refer to.
pub(crate) struct Site {
    pub line: u32,
    pub text: String,
}

/// One index of an access.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    pub index: Slot,
    /// Bytes, or words in registers, from element to element.
    pub stride: u32,
    /// Elements; None: as many as the binding has.
    pub count: Option<u32>,
}

/// A part of the name of what is accessed.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Text(String),
    /// The value of a term.
    Index(usize),
}

/// Where an access goes: in bytes from the start of a global variable, or in words from a slot.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub offset: u32,
    pub terms: Vec<Term>,
    pub name: Vec<Part>,
}

/// What may go wrong in arithmetic, looked for before it is done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Check {
    Division { signed: bool },
    Shift,
    ToI32,
    ToU32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Gather {
    First,
    Broadcast,
    Shuffle,
    Down,
    Up,
    Xor,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum AtomicFunction {
    Load,
    Store,
    Combine(Binary),
    Exchange,
    CompareExchange,
}

#[derive(Debug)]
pub(crate) struct CooperativeAccess {
    pub matrix: u32,
    pub global: usize,
    pub place: Place,
    pub stride: Slot,
    pub row_major: bool,
    pub tile: usize,
    /// Bytes of the pointer's type, the unit of the stride.
    pub unit: u32,
    pub half: bool,
    pub site: u32,
}

#[derive(Debug)]
pub(crate) enum Op {
    Unary {
        f: Unary,
        to: Slot,
        a: Slot,
    },
    Binary {
        f: Binary,
        to: Slot,
        a: Slot,
        b: Slot,
    },
    Ternary {
        f: Ternary,
        to: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    /// Of the active lanes only.
    Copy {
        to: Slot,
        from: Slot,
    },
    Check {
        check: Check,
        a: Slot,
        b: Slot,
        site: u32,
    },
    /// An element of a value that lies in `from`, `words` to an element.
    Element {
        to: Slot,
        from: Vec<Slot>,
        words: u32,
        index: Slot,
        site: u32,
    },
    LoadLocal {
        to: Slot,
        words: u32,
        place: Place,
        site: u32,
    },
    StoreLocal {
        from: Vec<Slot>,
        place: Place,
        site: u32,
    },
    Load {
        to: Slot,
        global: usize,
        place: Place,
        pieces: Vec<Piece>,
        site: u32,
    },
    Store {
        from: Vec<Slot>,
        global: usize,
        place: Place,
        pieces: Vec<Piece>,
        site: u32,
    },
    /// `result`: the old value, and for a comparison whether it was exchanged.
    Atomic {
        f: AtomicFunction,
        global: usize,
        place: Place,
        value: Slot,
        compare: Slot,
        result: Option<Slot>,
        site: u32,
    },
    ArrayLength {
        to: Slot,
        global: usize,
    },
    Gather {
        f: Gather,
        to: Slot,
        from: Vec<Slot>,
        index: Slot,
        site: u32,
    },
    Ballot {
        to: Slot,
        predicate: Option<Slot>,
        site: u32,
    },
    /// `identity` where a scan or a reduction starts; `exclusive`, `inclusive` scans, or neither: all lanes get the whole.
    Collect {
        f: Collect,
        to: Slot,
        from: Vec<Slot>,
        site: u32,
    },
    Barrier {
        storage: bool,
        workgroup: bool,
        site: u32,
    },
    CooperativeLoad(Box<CooperativeAccess>),
    CooperativeStore(Box<CooperativeAccess>),
    CooperativeMultiplyAdd {
        to: u32,
        a: u32,
        b: u32,
        c: u32,
        tile: usize,
        half: bool,
        site: u32,
    },
    /// Of the subgroups that have an active lane.
    CooperativeCopy {
        to: u32,
        from: u32,
        site: u32,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Collect {
    pub f: Binary,
    pub identity: u32,
    pub scan: Scan,
    /// Rounded to half floats after each step.
    pub half: bool,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Scan {
    Reduce,
    Inclusive,
    Exclusive,
}

#[derive(Debug)]
pub(crate) struct Case {
    /// Bits of the selector's values; empty and `default` for the rest.
    pub values: Vec<u32>,
    pub default: bool,
    pub body: Vec<Node>,
}

#[derive(Debug)]
pub(crate) enum Node {
    Run {
        ops: Vec<Op>,
        run: usize,
    },
    If {
        condition: Slot,
        accept: Vec<Node>,
        reject: Vec<Node>,
    },
    Loop {
        body: Vec<Node>,
        continuing: Vec<Node>,
        break_if: Option<Slot>,
        site: u32,
    },
    Switch {
        selector: Slot,
        cases: Vec<Case>,
    },
    Break,
    Continue,
    Return {
        copies: Vec<(Slot, Slot)>,
        matrix: Option<(u32, u32)>,
    },
    Call {
        function: usize,
        copies: Vec<(Slot, Slot)>,
        matrices: Vec<(u32, u32)>,
        results: Vec<(Slot, Slot)>,
        matrix: Option<(u32, u32)>,
    },
}

/// What one execution of a run costs: `instructions` a subgroup, the others a lane.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Cost {
    pub instructions: u64,
    pub floats: u64,
    pub specials: u64,
    pub integers: u64,
    pub scalars: u64,
}

impl Cost {
    pub fn add(&mut self, other: Cost) {
        self.instructions += other.instructions;
        self.floats += other.floats;
        self.specials += other.specials;
        self.integers += other.integers;
        self.scalars += other.scalars;
    }
}

/// The costs of a run by source line.
pub(crate) type LineCosts = BTreeMap<u32, Cost>;

#[derive(Default)]
pub(crate) struct Function {
    pub arguments: Vec<Argument>,
    /// Registers that are set when the function is called: slot, and the slot whose value they get.
    pub start: Vec<(Slot, Slot)>,
    /// Cooperative matrices that are set to zero then.
    pub zero_matrices: Vec<u32>,
    pub body: Vec<Node>,
    pub result: Vec<Slot>,
    pub result_matrix: Option<u32>,
}

pub(crate) enum Argument {
    Words(Vec<Slot>),
    Matrix(u32),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Space {
    Workgroup,
    Uniform,
    Storage,
}

/// A variable in memory.
pub(crate) struct Global {
    pub name: String,
    pub space: Space,
    pub binding: u32,
    /// Bytes from the start to a runtime array, and from element to element of it; the stride is 0 without such an array.
    pub array: (u32, u32),
    /// Bytes of all that has a fixed size.
    pub size: u32,
    /// The greatest power of two that divides all addresses and sizes of accesses: races are looked for in units of this.
    pub granule: u32,
    pub is_used: bool,
    pub is_written: bool,
    /// Bytes from the start of workgroup memory.
    pub start: u32,
}

#[derive(Default)]
pub(crate) struct Program {
    pub functions: Vec<Function>,
    /// Words of a lane.
    pub slots: u32,
    pub matrices: u32,
    pub constants: Vec<u32>,
    pub globals: Vec<Global>,
    pub sites: Vec<Site>,
    pub runs: Vec<LineCosts>,
    /// Private variables: slot, and the slot whose value they start with.
    pub privates: Vec<(Slot, Slot)>,
    /// Built-in values: slot, which, component.
    pub builtins: Vec<(Slot, naga::BuiltIn, u32)>,
    pub workgroup_size: [u32; 3],
    pub workgroup_memory: u32,
}
