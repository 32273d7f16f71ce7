// A volume of single floats that may lie in several buffers, PARTS of them with PART voxels each but the last: more than an adapter
// binds at once. `volume` declares NAME(i), the value of voxel i; its first buffer is bound at `first`, the others from `further` on.
// `writable` declares set_NAME(i, value).
{% set PARTS = PARTS | default(1) %}
{% set PART = PART | default(1) %}
{% macro volume(name, access, first, further) %}
@group(0) @binding({{ first }}) var<storage, {{ access }}> {{ name }}_0: array<f32>;
{% for p in range(1, PARTS) %}
@group(0) @binding({{ further + p - 1 }}) var<storage, {{ access }}> {{ name }}_{{ p }}: array<f32>;
{% endfor %}

fn {{ name }}(i: u32) -> f32 {
{% for p in range(1, PARTS) | reverse %}
    if i >= {{ p * PART }}u { return {{ name }}_{{ p }}[i - {{ p * PART }}u]; }
{% endfor %}
    return {{ name }}_0[i];
}
{% endmacro %}
{% macro writable(name) %}
fn set_{{ name }}(i: u32, value: f32) {
{% for p in range(1, PARTS) | reverse %}
    if i >= {{ p * PART }}u {
        {{ name }}_{{ p }}[i - {{ p * PART }}u] = value;
        return;
    }
{% endfor %}
    {{ name }}_0[i] = value;
}
{% endmacro %}
