//! Cooperative matrices against plain products.

mod support;

use shader_interpreter::{Buffer, Error, FaultKind, Kernel};
use support::{floats, halves, kinds, read_floats, run_clean, run_with};

/// Small numbers that half floats have.
fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|k| ((k * 7 + seed * 13) % 31) as f32 * 0.125 - 1.5).collect()
}

/// How a matrix lies in memory: `stride` scalars from row to row, or from column to column.
#[derive(Clone, Copy)]
struct Layout {
    row_major: bool,
    stride: usize,
}

impl Layout {
    fn at(self, row: usize, column: usize) -> usize {
        if self.row_major { row * self.stride + column } else { column * self.stride + row }
    }

    fn suffix(self) -> &'static str {
        if self.row_major { "T" } else { "" }
    }
}

/// r = a * b + c for subgroups that each have matrices of their own, one after another.
fn check(tile: usize, lanes: usize, [a, b, c]: [Layout; 3], vectors: bool, staged: bool) {
    let subgroups = 2;
    // Scalars of each matrix, its last row without padding filled up.
    let sizes = [a, b, c].map(|layout| layout.stride * tile);
    let element = if vectors { ("vec4<f16>", "vec4<f32>", 4) } else { ("f16", "f32", 1) };
    let (half, single, unit) = element;
    let strides = [a, b, c].map(|layout| layout.stride / unit);
    let counts = sizes.map(|size| subgroups * size / unit);
    let firsts = sizes.map(|size| size / unit);
    let (stage, names) = if staged {
        let copy = |name: &str, k: usize| {
            format!(
                "for (var k = i; k < {}u; k += {}u) {{ {name}_staged[k] = {name}[k]; }}\n",
                counts[k],
                subgroups * lanes
            )
        };
        (copy("a", 0) + &copy("b", 1) + &copy("c", 2) + "workgroupBarrier();", ["a_staged", "b_staged", "c_staged"])
    } else {
        (String::new(), ["a", "b", "c"])
    };
    let source = format!(
        "enable f16; enable wgpu_cooperative_matrix;
        @group(0) @binding(0) var<storage, read> a: array<{half}>;
        @group(0) @binding(1) var<storage, read> b: array<{half}>;
        @group(0) @binding(2) var<storage, read> c: array<{single}>;
        @group(0) @binding(3) var<storage, read_write> r: array<{single}>;
        var<workgroup> a_staged: array<{half}, {}>;
        var<workgroup> b_staged: array<{half}, {}>;
        var<workgroup> c_staged: array<{single}, {}>;
        @compute @workgroup_size({}) fn main(@builtin(local_invocation_index) i: u32, @builtin(subgroup_id) s: u32) {{
            {stage}
            let x = coopLoad{}<coop_mat{tile}x{tile}<f16, A>>(&{}[s * {}u], {}u);
            let y = coopLoad{}<coop_mat{tile}x{tile}<f16, B>>(&{}[s * {}u], {}u);
            var sum = coopLoad{}<coop_mat{tile}x{tile}<f32, C>>(&{}[s * {}u], {}u);
            sum = coopMultiplyAdd(x, y, sum);
            coopStore{}(sum, &r[s * {}u], {}u);
        }}",
        counts[0],
        counts[1],
        counts[2],
        subgroups * lanes,
        a.suffix(),
        names[0],
        firsts[0],
        strides[0],
        b.suffix(),
        names[1],
        firsts[1],
        strides[1],
        c.suffix(),
        names[2],
        firsts[2],
        strides[2],
        c.suffix(),
        firsts[2],
        strides[2],
    );
    let inputs = [0, 1, 2].map(|k| numbers(subgroups * sizes[k], k));
    let mut buffers =
        [halves(&inputs[0]), halves(&inputs[1]), floats(&inputs[2]), Buffer::new(subgroups * sizes[2] * 4)];
    let report = run_clean(&source, lanes as u32, &mut buffers);
    let found = read_floats(&buffers[3]);
    for s in 0..subgroups {
        for row in 0..tile {
            for column in 0..tile {
                let mut sum = inputs[2][s * sizes[2] + c.at(row, column)];
                for k in 0..tile {
                    sum += inputs[0][s * sizes[0] + a.at(row, k)] * inputs[1][s * sizes[1] + b.at(k, column)];
                }
                assert_eq!(found[s * sizes[2] + c.at(row, column)], sum, "subgroup {s}, row {row}, column {column}");
            }
        }
    }
    assert_eq!(report.counts.matrix_products, 2);
    assert_eq!(report.counts.matrix_flops, 2 * 2 * (tile as u64).pow(3));
    // Halves of two matrices, floats of one, for two subgroups.
    assert_eq!(report.counts.cooperative_load_bytes, 2 * (tile * tile * 8) as u64);
    assert_eq!(report.counts.cooperative_store_bytes, 2 * (tile * tile * 4) as u64);
}

#[test]
fn products_agree_in_every_layout() {
    for (tile, lanes) in [(8, 8), (8, 32), (16, 32), (16, 64)] {
        for padding in [0, 4, 8] {
            for k in 0..8 {
                let layout = |bit: usize| Layout { row_major: k >> bit & 1 == 1, stride: tile + padding };
                for vectors in [false, true] {
                    for staged in [false, true] {
                        check(tile, lanes, [layout(0), layout(1), layout(2)], vectors, staged);
                    }
                }
            }
        }
    }
}

#[test]
fn zero_matrices_functions_and_half_sums() {
    let source = "enable f16; enable wgpu_cooperative_matrix;
        @group(0) @binding(0) var<storage, read> a: array<f16>;
        @group(0) @binding(1) var<storage, read_write> r: array<f16>;
        fn product(x: coop_mat8x8<f16, A>, y: coop_mat8x8<f16, B>, z: coop_mat8x8<f16, C>) -> coop_mat8x8<f16, C> {
            return coopMultiplyAdd(x, y, z);
        }
        @compute @workgroup_size(8) fn main() {
            var sum = coop_mat8x8<f16, C>();
            for (var k = 0u; k < 3u; k++) {
                var fresh = coop_mat8x8<f16, C>();
                fresh = product(coopLoadT<coop_mat8x8<f16, A>>(&a[0], 8u), coopLoadT<coop_mat8x8<f16, B>>(&a[64], 8u), fresh);
                sum = product(coopLoadT<coop_mat8x8<f16, A>>(&a[0], 8u), coopLoadT<coop_mat8x8<f16, B>>(&a[64], 8u), fresh);
            }
            coopStoreT(sum, &r[0], 8u);
        }";
    let a = numbers(128, 3);
    let mut buffers = [halves(&a), Buffer::new(128)];
    run_clean(source, 8, &mut buffers);
    let round = |x: f32| half::f16::from_f32(x).to_f32();
    let found = support::read_halves(&buffers[1]);
    for row in 0..8 {
        for column in 0..8 {
            let plain = |start: f32| round((0..8).fold(start, |sum, k| sum + a[row * 8 + k] * a[64 + k * 8 + column]));
            assert_eq!(found[row * 8 + column], plain(plain(0.0)));
        }
    }
}

fn faulty(body: &str, lanes: u32) -> Vec<FaultKind> {
    let source = format!(
        "enable f16; enable wgpu_cooperative_matrix;
        @group(0) @binding(0) var<storage, read> a: array<f16>;
        @group(0) @binding(1) var<storage, read_write> r: array<f16>;
        var<workgroup> held: array<f16, 128>;
        @compute @workgroup_size({lanes}) fn main(@builtin(local_invocation_index) i: u32, @builtin(subgroup_id) s: u32) {{ {body} }}"
    );
    kinds(&run_with(&source, 1, 8, &mut [halves(&numbers(128, 1)), Buffer::new(256)]))
}

const LOAD: &str = "coopStoreT(coopLoadT<coop_mat8x8<f16, C>>(&held[s * 64u], 8u), &r[s * 64u], 8u);";
const FILL: &str = "for (var k = i; k < 128u; k += 16u) { held[k] = a[k]; }";

#[test]
fn cooperative_accesses_race_with_those_of_lanes() {
    assert_eq!(faulty(&format!("{FILL} workgroupBarrier(); {LOAD}"), 16), []);
    assert_eq!(faulty(&format!("{FILL} {LOAD}"), 16), [FaultKind::Race]);
    // Each lane fills the rows of its own subgroup: still not ordered.
    let own = "for (var k = 0u; k < 8u; k++) { held[i * 8u + k] = a[k]; }";
    assert_eq!(faulty(&format!("{own} {LOAD}"), 16), [FaultKind::Race]);
    // A subgroup's own cooperative accesses are.
    let store = "coopStoreT(coopLoadT<coop_mat8x8<f16, C>>(&a[0], 8u), &held[s * 64u], 8u);";
    assert_eq!(faulty(&format!("{store} {LOAD}"), 16), []);
    assert_eq!(
        faulty("coopStoreT(coopLoadT<coop_mat8x8<f16, C>>(&a[0], 8u), &r[s * 32u], 8u);", 16),
        [FaultKind::Race]
    );
}

#[test]
fn other_faults_of_cooperative_operations() {
    assert_eq!(faulty(LOAD, 16), [FaultKind::Uninitialised]);
    let load = |index: &str, stride: &str| {
        format!("coopStoreT(coopLoadT<coop_mat8x8<f16, C>>(&a[{index}], {stride}), &r[s * 64u], 8u);")
    };
    assert_eq!(faulty(&load("s * 8u", "16u"), 16), []);
    assert_eq!(faulty(&load("s * 8u + 1u", "16u"), 16), [FaultKind::OutOfRange]);
    assert_eq!(faulty(&load("0", "18u"), 16), [FaultKind::OutOfRange]);
    assert_eq!(faulty(&load("i", "8u"), 16), [FaultKind::NonUniformBarrier]);
    assert_eq!(faulty(&format!("if i != 3u {{ {} }}", load("0", "8u")), 16), [FaultKind::NonUniformBarrier; 2]);
    // A subgroup that is not whole.
    assert_eq!(faulty(&load("0", "8u"), 12), [FaultKind::NonUniformBarrier; 2]);
}

#[test]
fn arithmetic_of_matrices_is_not_supported() {
    let source = "enable f16; enable wgpu_cooperative_matrix;
        @group(0) @binding(0) var<storage, read_write> a: array<f32>;
        @compute @workgroup_size(8) fn main() {
            let x = coopLoad<coop_mat8x8<f32, C>>(&a[0], 8u); coopStore(x + x, &a[0], 8u);
        }";
    assert!(matches!(Kernel::new(source, "main", &[]), Err(Error::Unsupported(_))));
}
