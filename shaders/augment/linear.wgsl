// The patch by linear interpolation in the region; around the crop there are zeros. One voxel an invocation.

#import augment
#import parts

@group(0) @binding(3) var<storage, read_write> y: array<f32>;
{{ volume("region", "read", 2, 4) }}

fn value(at: vec3<i32>) -> f32 {
    if any(at < vec3<i32>(0)) || any(at >= vec3<i32>(sampled.region)) { return 0.0; }
    let u = vec3<u32>(at);
    return region((u.x * sampled.region.y + u.y) * sampled.region.z + u.z);
}

// Along x between two neighbours.
fn between(at: vec3<i32>, t: f32) -> f32 {
    let a = value(at);
    return a + (value(at + vec3<i32>(0, 0, 1)) - a) * t;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v >= voxel_total() { return; }
    let c = coordinate(v);
    let p = position(c);
    let at = p.voxel - sampled.start;
    let a = between(at, p.t.z);
    let b = between(at + vec3<i32>(0, 1, 0), p.t.z);
    let low = a + (b - a) * p.t.y;
    let d = between(at + vec3<i32>(1, 0, 0), p.t.z);
    let e = between(at + vec3<i32>(1, 1, 0), p.t.z);
    let high = d + (e - d) * p.t.y;
    y[params.first + mirrored(c)] = low + (high - low) * p.t.x;
}
