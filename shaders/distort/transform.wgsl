// Models Genesis: a voxel that a window owns takes the value of another voxel of that window, values follow the intensity curve,
// and what is painted becomes noise from [0, 1). One voxel an invocation.

#import distort
#import threefry

@group(0) @binding(2) var<storage, read_write> image: array<f32>;
@group(0) @binding(3) var<storage, read_write> owners: array<u32>;
@group(0) @binding(4) var<storage, read> windows: array<Box>;
// Points (x, y), x ascending.
@group(0) @binding(5) var<storage, read> curve: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> distorted: array<f32>;

// A good mixture of 32 bits.
fn mix32(v: u32) -> u32 {
    var x = v;
    x = (x ^ (x >> 16u)) * 0x7feb352du;
    x = (x ^ (x >> 15u)) * 0x846ca68bu;
    return x ^ (x >> 16u);
}

fn place(p: u32, key: vec2<u32>) -> u32 {
    return mix32(key.x + mix32(key.y + p));
}

// Where p of 0..n goes under the permutation of this key: the order of random numbers where they are few (a Feistel network of few
// bits favours some orders), else a Feistel network over the next power of 4, walked until it is within.
fn permuted(p: u32, n: u32, key: vec2<u32>) -> u32 {
    if n <= 64u {
        let own = place(p, key);
        var rank = 0u;
        for (var j = 0u; j < n; j++) {
            let other = place(j, key);
            if other < own || (other == own && j < p) { rank++; }
        }
        return rank;
    }
    var bits = 1u;
    while (1u << (2u * bits)) < n { bits++; }
    let half = (1u << bits) - 1u;
    var q = p;
    loop {
        var left = q >> bits;
        var right = q & half;
        for (var k = 0u; k < 6u; k++) {
            let next = left ^ (mix32(right ^ mix32(key.x + mix32(key.y + k))) & half);
            left = right;
            right = next;
        }
        q = (left << bits) | right;
        if q < n { break; }
    }
    return q;
}

// numpy.interp: linear between the points, the outermost y beyond them.
fn curve_at(x: f32) -> f32 {
    var low = sampled.zero;
    var high = sampled.points - 1u;
    if x < curve[low].x { return curve[low].y; }
    if x >= curve[high].x { return curve[high].y; }
    // curve[low].x <= x < curve[high].x
    while high - low > 1u {
        let middle = (low + high) / 2u;
        if x < curve[middle].x { high = middle; } else { low = middle; }
    }
    let a = curve[low];
    let b = curve[high];
    return (b.y - a.y) / (b.x - a.x) * (x - a.x) + a.y;
}

fn in_a_box(c: vec3<u32>) -> bool {
    for (var k = sampled.zero; k < sampled.boxes; k++) {
        let box = sampled.boxed[k];
        if all(c >= box.corner) && all(c < box.corner + box.size) { return true; }
    }
    return false;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v >= params.dims.x * params.dims.y * params.dims.z { return; }
    let c = voxel_of(v, params.dims);
    if sampled.paint > sampled.zero && in_a_box(c) == (sampled.paint == 1u) {
        distorted[v] = f32(threefry(sampled.seed, vec2<u32>(v, 0u)).x >> 8u) / 16777216.0;
        return;
    }
    var source = v;
    if sampled.windows > sampled.zero {
        let owner = owners[v];
        if owner > 0u {
            let window = windows[owner - 1u];
            let at = c - window.corner;
            let p = (at.x * window.size.y + at.y) * window.size.z + at.z;
            let n = window.size.x * window.size.y * window.size.z;
            let key = vec2<u32>(mix32(sampled.seed.x ^ mix32(owner)), sampled.seed.y);
            source = index_of(window.corner + voxel_of(permuted(p, n, key), window.size));
        }
    }
    var value = image[source];
    if sampled.points > sampled.zero { value = curve_at(value); }
    distorted[v] = value;
}
