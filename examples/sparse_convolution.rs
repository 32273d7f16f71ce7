//! One convolution over the visible blocks of a volume, forward and backward: the smallest use of the library.
//!
//!     cargo run --release --example sparse_convolution

use spark3d::base::error::Result;
use spark3d::compute::device::Gpu;
use spark3d::compute::graph::{BlockMask, Graph, Parameters, Precision, Session, VoxelLayout};
use spark3d::compute::ops::{Bias, Geometry};
use std::rc::Rc;

fn main() -> Result<()> {
    spark3d::cli::quiet_drivers();
    // 16³ voxels in 4³ blocks, of which every fifth is visible.
    let (dims, grid) = ([16; 3], [4; 3]);
    let visible = BlockMask { grid, visible: (0..64).map(|cell| cell % 5 == 0).collect() };

    // The graph: image -> features of the visible voxels -> 3x3x3 convolution from 1 to 8 channels, and its gradient.
    let mut graph = Graph::new(Parameters::default(), Precision::F32);
    let mask = graph.mask(grid);
    let space = VoxelLayout::sparse(dims, mask, visible.count()).expect("16 is a multiple of 4");
    let image = graph.image(1, dims);
    let x = graph.pack(image.tensor(), 1, space);
    let y = graph.conv3d(&[x], "conv", 8, space, Geometry::same([3; 3], [1; 3]), Bias::Trained);
    let upstream = graph.image(8, dims);
    let dy = graph.pack(upstream.tensor(), 8, space);
    graph.backward(&[(y, dy)], []);
    let (output, id) = (graph.keep(y), graph.id());

    // Planned, allocated, compiled, run.
    let mut session = Session::new(Rc::new(Gpu::open("auto")?), vec![graph], None)?;
    session.set_mask(mask, &visible)?;
    session.set_image(image, &vec![1.0; 16 * 16 * 16]);
    session.set_image(upstream, &vec![1.0; 8 * 16 * 16 * 16]);
    session.set_weight(session.parameters.find("conv.weight").expect("made above"), &[1.0; 8 * 27]);
    session.start_step();
    session.run(id)?;

    // In a lone visible block of ones a corner sees 8 of its 27 neighbours, the middle all 27; hidden voxels are zero.
    let values = session.read(output)?;
    println!("corner {}, middle {}, hidden {}", values[0], values[(16 + 1) * 16 + 1], values[4]);
    let bias = session.gradient(session.parameters.find("conv.bias").expect("made above"))?;
    println!("gradient of the first bias: {} = {} visible blocks of 64 voxels", bias[0], visible.count());
    println!("{:?}", session.memory());
    Ok(())
}
