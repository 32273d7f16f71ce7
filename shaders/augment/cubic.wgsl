// The patch from the spline's coefficients in the region, 64 to a voxel; 0 beyond the outermost voxel centres of the crop. One voxel
// an invocation.

#import augment
#import parts

@group(0) @binding(3) var<storage, read_write> y: array<f32>;
{{ volume("c", "read_write", 2, 4) }}

fn weights(t: f32) -> vec4<f32> {
    let u = 1.0 - t;
    let w0 = u * u * u / 6.0;
    let w3 = t * t * t / 6.0;
    let w1 = (4.0 - 6.0 * t * t + 3.0 * t * t * t) / 6.0;
    return vec4<f32>(w0, w1, 1.0 - w0 - w1 - w3, w3);
}

// Four neighbours along an axis of n voxels. At the crop's border the coefficients go on mirrored; elsewhere the region has a margin.
fn taps(first: i32, n: u32) -> vec4<u32> {
    return vec4<u32>(
        reflect_at_ends(first, n), reflect_at_ends(first + 1, n), reflect_at_ends(first + 2, n), reflect_at_ends(first + 3, n));
}

fn is_inside(p: Position) -> bool {
    let last = vec3<i32>(sampled.crop) - 1;
    return all(p.voxel >= vec3<i32>(0)) && all((p.voxel < last) | ((p.voxel == last) & (p.t == vec3<f32>(0.0))));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let v = (workgroup.x + workgroup.y * workgroups.x) * 64u + lane;
    if v >= voxel_total() { return; }
    let at = coordinate(v);
    let p = position(at);
    var sum = 0.0;
    if is_inside(p) {
        let first = p.voxel - sampled.start - 1;
        let n = sampled.region;
        let kz = taps(first.x, n.x) * (n.y * n.z);
        let ky = taps(first.y, n.y) * n.z;
        let kx = taps(first.z, n.z);
        let wz = weights(p.t.x);
        let wy = weights(p.t.y);
        let wx = weights(p.t.z);
        var row = 0u;
{% for a in ["x", "y", "z", "w"] %}
{% for b in ["x", "y", "z", "w"] %}
        row = kz.{{ a }} + ky.{{ b }};
        sum += wz.{{ a }} * wy.{{ b }} * dot(wx, vec4<f32>(c(row + kx.x), c(row + kx.y), c(row + kx.z), c(row + kx.w)));
{% endfor %}
{% endfor %}
    }
    y[params.first + mirrored(at)] = sum;
}
