// Winograd's minimal filtering F(2x2x2, 3x3x3): a tile of 2x2x2 voxels of a 3x3x3 convolution by 64 products in place of 216. Along
// each axis (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016, arXiv 1509.09308):
//
//     y = A^T ((G g) * (B^T d)),  dg = G^T ((B^T d) * (A dy)),
//
//     B^T = 1  0 -1  0     G = 1    0   0      A^T = 1  1  1  0
//           0  1  1  0         1/2  1/2 1/2          0  1 -1 -1
//           0 -1  1  0         1/2 -1/2 1/2
//           0  1  0 -1         0    0   1
//
// Channels are summed between the transforms: products of 64 pairs of matrices. Tiles are boxes of 2x2x2 voxels of the grid (see
// boxes.wgsl), so many of which are in work space at a time.

const TILE: vec3<u32> = vec3<u32>(2u);

// Of `tiles` tiles from `first` on, those that the grid has.
fn tiles_there(grid: VoxelLayout, first: u32, tiles: u32) -> u32 {
    let count = box_count(grid, TILE);
    return min(max(count, first) - first, tiles);
}
