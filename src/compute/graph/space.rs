//! Spaces: the set of voxels that a feature tensor stores.

use super::Mask;
use bytemuck::{Pod, Zeroable};

/// Channels are stored in channel groups of four.
pub const GROUP: usize = 4;
/// Bytes of four 32-bit floats: a channel group of a parameter, a statistic or a partial sum. Those of features depend on the precision.
pub const GROUP_BYTES: u64 = 16;

/// Voxels in C order (axes z, y, x); with `blocks`, only those of visible blocks. The samples of a batch follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VoxelLayout {
    /// Voxels along (z, y, x).
    pub dims: [usize; 3],
    /// The blocks of which only the visible ones are stored; `None`: every voxel is.
    pub blocks: Option<Blocks>,
    /// Samples that a tensor holds, each of `dims`.
    pub samples: usize,
}

/// A grid of blocks of which some are visible. `grid * block == dims`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blocks {
    /// Blocks along (z, y, x).
    pub grid: [usize; 3],
    /// Voxels of a block along (z, y, x).
    pub block: [usize; 3],
    /// Which of the graph's masks tells the visible blocks.
    pub mask: u32,
    /// Most blocks that are ever visible, in all samples; storage is planned for them.
    pub capacity: usize,
}

impl VoxelLayout {
    /// All voxels of a volume of `dims`.
    pub fn dense(dims: [usize; 3]) -> Self {
        Self { dims, blocks: None, samples: 1 }
    }

    /// All voxels of as many samples of `dims`.
    pub fn dense_like(self, dims: [usize; 3]) -> Self {
        Self { dims, blocks: None, samples: self.samples }
    }

    /// The space of `dims` under a mask, with at most `capacity` visible blocks a sample; `None` where the mask's cells are not whole
    /// voxels.
    pub fn sparse(dims: [usize; 3], mask: Mask, capacity: usize) -> Option<Self> {
        let grid = mask.grid;
        let whole = (0..3).all(|a| dims[a].is_multiple_of(grid[a]) && dims[a] >= grid[a]);
        let block = std::array::from_fn(|a| dims[a] / grid[a].max(1));
        let (samples, capacity) = (mask.samples, capacity * mask.samples);
        whole.then_some(Self { dims, blocks: Some(Blocks { grid, block, mask: mask.index, capacity }), samples })
    }

    /// So many samples of it, under masks of as many where it is sparse.
    pub fn of_samples(self, samples: usize) -> Self {
        let blocks = self.blocks.map(|b| Blocks { capacity: b.capacity / self.samples * samples, ..b });
        Self { blocks, samples, ..self }
    }

    /// Whether only visible blocks are stored.
    pub fn is_sparse(&self) -> bool {
        self.blocks.is_some()
    }

    /// Voxels stored at full capacity; also the distance between two channel groups.
    pub fn voxels(&self) -> usize {
        match self.blocks {
            Some(b) => b.capacity * product(b.block),
            None => self.samples * product(self.dims),
        }
    }

    /// Voxels of a block, or of a sample where all are stored.
    pub fn extent(&self) -> [usize; 3] {
        self.blocks.map_or(self.dims, |b| b.block)
    }

    /// How many times [`VoxelLayout::extent`] is stored at full capacity.
    pub fn extents(&self) -> usize {
        self.blocks.map_or(self.samples, |b| b.capacity)
    }

    /// Length of a row of voxels that are neighbours along x.
    pub fn row(&self) -> usize {
        self.blocks.map_or(self.dims[2], |b| b.block[2])
    }

    /// The mask that tells the visible blocks, by its number in the graph.
    pub fn mask(&self) -> Option<u32> {
        self.blocks.map(|b| b.mask)
    }

    /// Voxels along (z, y, x), and whether only visible blocks are stored: for people.
    pub fn name(&self) -> String {
        let [z, y, x] = self.dims;
        let samples = if self.samples == 1 { String::new() } else { format!(" x{}", self.samples) };
        format!("{z}.{y}.{x}{}{samples}", if self.is_sparse() { " sparse" } else { "" })
    }

    /// The struct `VoxelLayout` of `shaders/shared/space.wgsl`.
    pub fn uniform(&self) -> VoxelLayoutUniform {
        let b = self.blocks.unwrap_or(Blocks { grid: [1; 3], block: self.dims, mask: 0, capacity: 1 });
        let u = |v: [usize; 3]| v.map(|x| x as u32);
        VoxelLayoutUniform {
            dims: u(self.dims),
            stride: self.voxels() as u32,
            block: u(b.block),
            block_volume: product(b.block) as u32,
            grid: u(b.grid),
            sparse: u32::from(self.is_sparse()),
            inverse_block: b.block.map(|x| 1.0 / x as f32),
            padding: 0,
        }
    }
}

/// The number of voxels of a volume.
pub fn product(v: [usize; 3]) -> usize {
    v[0] * v[1] * v[2]
}

/// Coordinates (z, y, x) of the `n`-th voxel of a volume in C order.
pub fn coordinate(n: usize, dims: [usize; 3]) -> [usize; 3] {
    [n / (dims[1] * dims[2]), n / dims[2] % dims[1], n % dims[2]]
}

/// Byte layout of the WGSL struct `VoxelLayout`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct VoxelLayoutUniform {
    /// Voxels along (z, y, x).
    pub dims: [u32; 3],
    /// Voxels between two channel groups.
    pub stride: u32,
    /// Voxels of a block along (z, y, x).
    pub block: [u32; 3],
    /// Voxels of a block.
    pub block_volume: u32,
    /// Blocks along (z, y, x).
    pub grid: [u32; 3],
    /// 1 where only visible blocks are stored.
    pub sparse: u32,
    /// 1 / `block`, so that kernels multiply.
    pub inverse_block: [f32; 3],
    /// WGSL aligns vectors to 16 bytes.
    pub padding: u32,
}

/// Which blocks of a grid are visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockMask {
    /// Cells along (z, y, x).
    pub grid: [usize; 3],
    /// One flag a cell in C order; true = visible.
    pub visible: Vec<bool>,
}

impl BlockMask {
    /// The masks of the samples of a batch, one after the other along z.
    ///
    /// # Panics
    /// When their grids differ, or there is none.
    pub fn stacked(masks: &[Self]) -> Self {
        let [z, y, x] = masks[0].grid;
        assert!(masks.iter().all(|m| m.grid == masks[0].grid), "grids of the masks of a batch");
        let visible = masks.iter().flat_map(|m| m.visible.iter().copied()).collect();
        Self { grid: [masks.len() * z, y, x], visible }
    }

    /// Number of visible cells.
    pub fn count(&self) -> usize {
        self.visible.iter().filter(|&&v| v).count()
    }

    /// The table that the shaders read (`shaders/shared/space.wgsl`).
    pub fn table(&self) -> Vec<u32> {
        let mut slots = Vec::with_capacity(self.visible.len());
        let mut blocks = Vec::new();
        for (cell, &visible) in self.visible.iter().enumerate() {
            slots.push(if visible { blocks.len() as u32 } else { u32::MAX });
            if visible {
                blocks.push(cell as u32);
            }
        }
        let mut table = vec![blocks.len() as u32, self.visible.len() as u32];
        table.extend(slots);
        table.extend(&blocks);
        table.resize(Self::table_len(self.grid), 0);
        table
    }

    /// Length of [`BlockMask::table`] for a grid, whatever is visible.
    pub fn table_len(grid: [usize; 3]) -> usize {
        2 + 2 * product(grid)
    }

    /// Whether the voxel at `c` of a volume of `dims` lies in a visible block.
    pub fn at(&self, c: [usize; 3], dims: [usize; 3]) -> bool {
        let cell: [usize; 3] = std::array::from_fn(|a| c[a] * self.grid[a] / dims[a]);
        self.visible[(cell[0] * self.grid[1] + cell[1]) * self.grid[2] + cell[2]]
    }
}
