//! Two kernels of spark3d, rendered: an image is packed into channel groups, and convolved by cooperative matrices.

mod support;

use shader_interpreter::{Binding, Buffer, FaultKind, Kernel, Launch, Options, Report, run};
use support::{bindings, floats, kinds, read_floats, words};

const PACK: &str = include_str!("fixtures/pack.wgsl");
const MATRIX: &str = include_str!("fixtures/matrix.wgsl");

/// A space that stores all of its voxels.
fn dense(dims: [u32; 3]) -> Vec<u32> {
    let voxels = dims.iter().product();
    let mut out = dims.to_vec();
    out.push(voxels);
    out.extend([1, 1, 1, 1, 1, 1, 1, 0]);
    out.extend([1f32.to_bits(); 3]);
    out.push(0);
    out
}

/// The sparse space of blocks of 2 voxels along each axis, and its table: `visible` are the numbers of blocks that are stored.
fn sparse(grid: [u32; 3], visible: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let blocks = grid.iter().product::<u32>();
    let mut layout: Vec<u32> = grid.iter().map(|n| n * 2).collect();
    layout.push(visible.len() as u32 * 8);
    layout.extend([2, 2, 2, 8]);
    layout.extend(grid);
    layout.push(1);
    layout.extend([0.5f32.to_bits(); 3]);
    layout.push(0);
    let mut table = vec![visible.len() as u32, blocks];
    table
        .extend((0..blocks).map(|block| visible.iter().position(|v| *v == block).map_or(u32::MAX, |slot| slot as u32)));
    table.extend(visible);
    (layout, table)
}

fn launch(source: &str, workgroups: [u32; 3], bindings: &[Binding], buffers: &mut [Buffer]) -> Report {
    let kernel = Kernel::new(source, "main", &[]).unwrap_or_else(|error| panic!("{error}"));
    let options = Options::default();
    let launch = Launch { workgroups, only: None, subgroup_size: 8, bindings, options };
    run(&kernel, &launch, buffers).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn an_image_is_packed_into_a_sparse_space() {
    let (layout, table) = sparse([2, 3, 2], &[1, 4, 5, 11, 7, 0, 2, 3, 9]);
    let mut params = layout;
    let (channels, first_group) = (3, 0);
    params.extend([channels, first_group, 0, 0]);
    let voxels = 4 * 6 * 4;
    let image: Vec<f32> = (0..3 * voxels).map(|k| k as f32).collect();
    let stored = 9 * 8;
    let mut buffers = [words(&params), words(&table), floats(&image), Buffer::new(stored * 16)];
    let bindings = bindings(&buffers);
    let report = launch(PACK, [2, 1, 1], &bindings, &mut buffers);
    assert_eq!(kinds(&report), []);
    assert!(buffers[3].written.iter().all(|written| *written));
    let found = read_floats(&buffers[3]);
    for v in 0..stored {
        let block = [1, 4, 5, 11, 7, 0, 2, 3, 9][v / 8];
        let (bz, by, bx) = (block / 6, block / 2 % 3, block % 2);
        let (z, y, x) = (bz * 2 + v % 8 / 4, by * 2 + v % 4 / 2, bx * 2 + v % 2);
        let at = (z * 6 + y) * 4 + x;
        let expected = [0, 1, 2].map(|c| (c * voxels + at) as f32);
        assert_eq!(found[v * 4..][..3], expected);
        assert_eq!(found[v * 4 + 3], 0.0);
    }
    // The whole output is written once, 16 bytes a lane.
    assert_eq!(report.counts.global_store_bytes, stored as u64 * 16);
    assert_eq!(report.counts.global_store_sectors, stored as u64 / 2);
    // A table that says nothing of one block.
    let mut short = [words(&params), words(&table[..22]), floats(&image), Buffer::new(stored * 16)];
    let bindings = support::bindings(&short);
    let report = launch(PACK, [2, 1, 1], &bindings, &mut short);
    assert_eq!(kinds(&report), [FaultKind::OutOfRange]);
    assert!(report.faults[0].at.contains("mask[22]"), "{}", report.faults[0]);
}

const DIMS: [u32; 3] = [5, 6, 7];
const VOXELS: usize = 210;
const IN: usize = 16;
const OUT: usize = 32;

fn value(seed: usize, k: usize) -> f32 {
    ((k * 11 + seed * 5) % 17) as f32 * 0.25 - 2.0
}

fn weight(out: usize, input: usize, tap: usize) -> f32 {
    value(3, (out * IN + input) * 27 + tap)
}

/// Buffers of the convolution with a window of 3 voxels along each axis.
fn convolution() -> (Vec<Buffer>, Vec<Binding>) {
    let (in_groups, out_groups) = (IN as u32 / 4, OUT as u32 / 4);
    let mut params = [dense(DIMS), dense(DIMS), dense(DIMS)].concat();
    params.extend([1, 1, 1, in_groups]);
    params.extend([1, 1, 1, out_groups]);
    params.extend([1, 1, 1, 0]);
    params.extend([0, 0, 0, 1]);
    params.extend([9 * in_groups, 3 * in_groups, in_groups, 0]);
    params.extend([3, 3, 3, 27 * in_groups]);
    params.extend([1, 0, 0, 0]);
    let x: Vec<f32> = (0..VOXELS * IN).map(|k| value(1, k)).collect();
    let mut weights = Vec::new();
    for o in 0..OUT / 4 {
        for tap in 0..27 {
            for input in 0..IN {
                weights.extend((0..4).map(|c| weight(o * 4 + c, input, tap)));
            }
        }
    }
    let bias: Vec<f32> = (0..OUT).map(|k| k as f32).collect();
    let buffers = vec![
        words(&params),
        words(&[0; 4]),
        floats(&x),
        floats(&weights),
        floats(&bias),
        Buffer::new(VOXELS * OUT * 4),
    ];
    let bindings = bindings(&buffers);
    (buffers, bindings)
}

#[test]
fn a_convolution_by_cooperative_matrices_agrees_with_a_plain_one() {
    let (mut buffers, bindings) = convolution();
    let report = launch(MATRIX, [7, 1, 1], &bindings, &mut buffers);
    let faults: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(buffers[5].written.iter().all(|written| *written));
    let found = read_floats(&buffers[5]);
    for v in 0..VOXELS {
        let (z, y, x) = (v / 42, v / 7 % 6, v % 7);
        for out in 0..OUT {
            // All numbers are multiples of 1/16 and small: sums are exact in every order.
            let mut sum = out as f32;
            for tap in 0..27 {
                let (z, y, x) = (z + tap / 9, y + tap / 3 % 3, x + tap % 3);
                if (1..6).contains(&z) && (1..7).contains(&y) && (1..8).contains(&x) {
                    let at = ((z - 1) * 6 + y - 1) * 7 + x - 1;
                    sum += (0..IN)
                        .map(|i| value(1, ((i / 4) * VOXELS + at) * 4 + i % 4) * weight(out, i, tap))
                        .sum::<f32>();
                }
            }
            assert_eq!(found[((out / 4) * VOXELS + v) * 4 + out % 4], sum, "voxel {v}, channel {out}");
        }
    }
    let counts = &report.counts;
    // 7 workgroups of 2 subgroups, 27 taps, 2 steps of depth, 2 rows by 4 columns.
    assert_eq!(counts.matrix_products, 7 * 2 * 27 * 2 * 2 * 4);
    // Before and after staging, for each tap, and around each of 4 columns of sums.
    assert_eq!(counts.barriers, 7 * (2 * 27 + 2 * 4));
}

#[test]
fn a_convolution_without_one_of_its_barriers_races() {
    let barriers = MATRIX.matches("workgroupBarrier();").count();
    assert_eq!(barriers, 2 + 2 * 4);
    for missing in 0..barriers {
        let mut parts: Vec<&str> = MATRIX.split("workgroupBarrier();").collect();
        let joined = [parts[missing], parts[missing + 1]].concat();
        parts[missing] = &joined;
        parts.remove(missing + 1);
        let (mut buffers, bindings) = convolution();
        let report = launch(&parts.join("workgroupBarrier();"), [7, 1, 1], &bindings, &mut buffers);
        // The first barrier of the sums guards what no lane has touched yet.
        let expected = missing != 2;
        assert_eq!(kinds(&report).contains(&FaultKind::Race), expected, "barrier {missing}: {:?}", report.faults);
    }
}

#[test]
#[ignore = "says how fast the interpreter is"]
fn speed() {
    let (mut buffers, bindings) = convolution();
    let start = std::time::Instant::now();
    let report = launch(MATRIX, [7, 1, 1], &bindings, &mut buffers);
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "matrix: {:.1} million operations of lanes a second",
        report.counts.lane_operations as f64 / seconds / 1e6
    );
}
