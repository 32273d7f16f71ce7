//! What is to run, without a device: kernels, buffer slices and dispatches in order. The graph writes a recording, the
//! engine runs it.

use super::cost::Cost;

/// How feature tensors are stored. Arithmetic, weights, statistics and gradients of parameters are in 32 bits either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats
    #[default]
    F32,
    /// 16-bit floats: half the memory for activations
    F16,
}

impl Precision {
    /// Bytes of one voxel of one channel group of a feature tensor.
    pub fn group_bytes(self) -> u64 {
        match self {
            Precision::F32 => 16,
            Precision::F16 => 8,
        }
    }

    /// As plans and the command line spell it.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
        }
    }
}

impl std::str::FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Precision::F32, Precision::F16].into_iter().find(|p| p.name() == text);
        known.ok_or_else(|| "give f32 or f16".into())
    }
}

/// A compute pipeline by name: a shader file with values for its template variables and its `override` constants.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// Path below `shaders/` without the ending, e.g. `conv3d/direct`.
    pub shader: &'static str,
    /// Values of the variables of the shader's template.
    pub variables: Vec<(&'static str, u32)>,
    /// Values of its `override` constants.
    pub constants: Vec<(&'static str, f64)>,
    /// How feature tensors are stored.
    pub precision: Precision,
    /// Binding of a uniform that says with which workgroup a part of a dispatch begins; `None` where dispatches run as a whole.
    pub part: Option<u32>,
}

impl Kernel {
    /// The kernel of a shader file with the defaults of its variables and constants.
    pub fn new(shader: &'static str) -> Self {
        Self { shader, variables: Vec::new(), constants: Vec::new(), precision: Precision::F32, part: None }
    }
    /// Sets a variable of the shader's template: what the text itself depends on, such as the size of a register tile.
    pub fn unrolled(mut self, name: &'static str, value: usize) -> Self {
        self.variables.push((name, value as u32));
        self
    }
    /// Sets an `override` constant of the shader.
    pub fn with(mut self, name: &'static str, value: impl Into<f64>) -> Self {
        self.constants.push((name, value.into()));
        self
    }
    /// Sets an `override` constant that is true or false.
    pub fn flag(self, name: &'static str, value: bool) -> Self {
        self.with(name, f64::from(u8::from(value)))
    }
    /// Unique text of the shader module.
    pub fn module_key(&self) -> String {
        let part = if self.part.is_some() { " in parts" } else { "" };
        let shader = format!("{} {:?}{part}", self.shader, self.precision);
        self.variables.iter().fold(shader, |key, (name, value)| format!("{key} {name}:{value}"))
    }
    /// Unique text of the pipeline.
    pub fn key(&self) -> String {
        self.constants.iter().fold(self.module_key(), |key, (name, value)| format!("{key} {name}={value}"))
    }
}

/// Which buffers a slice lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Heap {
    /// Activations and work space, laid out by the memory planner.
    Arena(u32),
    /// Images and mask tables that the host uploads.
    Input(u32),
    /// Values that the host reads: losses, norms.
    Output,
    /// Parameters, in chunks that can be bound.
    Weights(u32),
    /// Gradients of parameters, laid out as the weights.
    Gradients(u32),
    /// Momentum of the optimiser, laid out as the weights.
    Momentum(u32),
    /// Learning rate, momentum and weight decay of the step.
    Hyper,
}

/// `size` bytes from `offset` of a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slice {
    /// The buffer.
    pub heap: Heap,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub size: u64,
}

/// The number of workgroups of a dispatch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Workgroups {
    /// Always these along x, y and z.
    Fixed([u32; 3]),
    /// Enough groups of `per_group` items for `per_block` items a visible block of mask `mask`, in x (folded into y past the
    /// adapter's limit) by `z`. The number of visible blocks is known when the recording runs.
    PerBlock {
        /// Number of the mask.
        mask: u32,
        /// Most blocks that can be visible.
        capacity: u32,
        /// Items of a visible block.
        per_block: u32,
        /// Items of a workgroup.
        per_group: u32,
        /// Workgroups along z.
        z: u32,
    },
    /// These groups while flag `flag` is set, else none.
    When {
        /// Number of the flag.
        flag: u32,
        /// Workgroups along x, y and z.
        groups: [u32; 3],
    },
}

/// What decides, when a recording runs, how many workgroups its dispatches have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dynamic {
    /// Visible blocks of each mask.
    pub visible: Vec<u32>,
    /// Which flags are set.
    pub flags: Vec<bool>,
}

impl Workgroups {
    /// Groups of `per_group` for `items`, in x folded into y, by `z`.
    pub fn folded(items: usize, per_group: usize, z: usize) -> Self {
        Workgroups::Fixed(fold(items, per_group, z as u32))
    }
    /// The numbers for the given visible blocks and flags.
    pub fn resolve(&self, dynamic: &Dynamic) -> [u32; 3] {
        match *self {
            Workgroups::When { flag, .. } if !dynamic.flags[flag as usize] => [0; 3],
            Workgroups::Fixed(groups) | Workgroups::When { groups, .. } => groups,
            Workgroups::PerBlock { mask, per_block, per_group, z, .. } => {
                fold(dynamic.visible[mask as usize] as usize * per_block as usize, per_group as usize, z)
            }
        }
    }

    /// The most that [`Workgroups::resolve`] returns.
    pub fn most(&self) -> [u32; 3] {
        match *self {
            Workgroups::Fixed(groups) | Workgroups::When { groups, .. } => groups,
            Workgroups::PerBlock { capacity, per_block, per_group, z, .. } => {
                fold(capacity as usize * per_block as usize, per_group as usize, z)
            }
        }
    }
}

/// WebGPU allows 65,535 workgroups a dimension.
const MAX_GROUPS: usize = 65_535;

/// Groups of `per_group` for `items`, in x folded into y, by `z`.
pub fn fold(items: usize, per_group: usize, z: u32) -> [u32; 3] {
    let groups = items.div_ceil(per_group);
    if groups <= MAX_GROUPS {
        return [groups as u32, 1, z];
    }
    let y = groups.div_ceil(MAX_GROUPS);
    [groups.div_ceil(y) as u32, y as u32, z]
}

/// One run of a kernel.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// The pipeline.
    pub kernel: Kernel,
    /// The bytes of the shader's `Params` uniform.
    pub params: Vec<u8>,
    /// Storage buffers from binding 1 on, in the order of the shader.
    pub bindings: Vec<Slice>,
    /// How many workgroups run.
    pub workgroups: Workgroups,
    /// Operator it belongs to, for profiles.
    pub label: &'static str,
    /// Floating-point operations at full capacity (all blocks that the plan allows visible).
    pub flops: f64,
    /// Bytes that must move at least, at full capacity.
    pub bytes: f64,
    /// Which layer it belongs to: channels and voxels, whatever the adapter and the pass.
    pub layer: String,
    /// The mask whose visible blocks its operations and bytes grow with.
    pub mask: Option<u32>,
    /// What a workgroup costs. `None`: a plain kernel, whose invocations share out `bytes`, load and store.
    pub cost: Option<Cost>,
}

/// Dispatches in order.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// What runs, the first first.
    pub dispatches: Vec<Dispatch>,
}
