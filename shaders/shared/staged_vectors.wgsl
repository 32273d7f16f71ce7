// Template of workgroup memory that cooperative matrices are loaded from and stored to: arrays of vectors of four, or of their
// scalars where SCALARS says so, since Metal loads matrices through pointers to scalars only. Places and row lengths are counted
// in vectors.

{% set SCALARS = SCALARS | default(0) %}
{% macro staged_array(name, scalar, vectors) -%}
var<workgroup> {{ name }}: array<{{ scalar if SCALARS else "vec4<" ~ scalar ~ ">" }}, {{ vectors * 4 if SCALARS else vectors }}>;
{%- endmacro %}
{% macro set_staged(name, at, value) %}
{% if SCALARS %}
{
    let first = ({{ at }}) * 4u;
    let four = {{ value }};
    {% for c in range(4) %}
    {{ name }}[first + {{ c }}u] = four[{{ c }}];
    {% endfor %}
}
{% else %}
{{ name }}[{{ at }}] = {{ value }};
{% endif %}
{% endmacro %}
{% macro get_staged(name, at, scalar) -%}
{% if SCALARS -%}
vec4<{{ scalar }}>({{ name }}[({{ at }}) * 4u], {{ name }}[({{ at }}) * 4u + 1u], {{ name }}[({{ at }}) * 4u + 2u], {{ name }}[({{ at }}) * 4u + 3u])
{%- else -%}
{{ name }}[{{ at }}]
{%- endif %}
{%- endmacro %}
{# Pointer and row length of a matrix that starts at vector `at`. #}
{% macro matrix_at(name, at, row) -%}
{% if SCALARS -%}
&{{ name }}[({{ at }}) * 4u], {{ row * 4 }}u
{%- else -%}
&{{ name }}[{{ at }}], {{ row }}u
{%- endif %}
{%- endmacro %}
{# Stages a matrix of four by four weights as four vectors, each the weights of an output channel, `row` vectors apart from `at` on:
   what is summed over is contiguous. The matrix lies by input channels, or by output channels where it is used transposed. #}
{% macro stage_weights(name, at, row, matrix, transposed) %}
{
    let first_row = ({{ matrix }}) * 4u;
    let quad0 = weight[first_row];
    let quad1 = weight[first_row + 1u];
    let quad2 = weight[first_row + 2u];
    let quad3 = weight[first_row + 3u];
    {% for c in range(4) %}
    {% set value = "quad" ~ c if transposed else "vec4<f32>(quad0[" ~ c ~ "], quad1[" ~ c ~ "], quad2[" ~ c ~ "], quad3[" ~ c ~ "])" %}
    {{ set_staged(name, at ~ " + " ~ c * row ~ "u", "vec4<f16>(" ~ value ~ ")") }}
    {% endfor %}
}
{% endmacro %}
