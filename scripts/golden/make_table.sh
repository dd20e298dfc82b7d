#!/usr/bin/env bash
# Writes docs/NETWORKS.md: every network, what it costs, and how near it comes to its reference; and models/verified.tsv, the
# largest difference of each network in its own form, for `finetune models --verified`. Takes minutes and 8 GB of memory.
set -euo pipefail
cd "$(dirname "$0")/../.."

# The program reads this table itself; one that is not there does not build.
[ -e models/verified.tsv ] || : >models/verified.tsv
rows=$(cargo test --release --workspace --locked --test golden_networks -- --include-ignored --nocapture | grep -ao '| .* |$' | LC_ALL=C sort)
timm=$(grep '^| timm .* 64×64 ' <<<"$rows")
others=$(grep -v '^| timm .* 64×64 ' <<<"$rows")

{
    cat <<'END'
# Networks

Every network that candle-resnet builds, compared with timm 1.0.31, torchvision 0.29.2 and, for CIFAR, the paper's networks
written in PyTorch 2.15: weights and input come from a formula (`scripts/golden/`), the values lie in
`models/references/` and `candle-resnet/tests/golden/`. `scripts/golden/make_table.sh` writes this page.

Differences are the largest of any of the first 16 values of each output and of its norm, relative to the largest of those
values and to the norm; the tests allow 1e-4. Parameters in millions, multiply-adds in thousand millions for one image of
224×224, with 1000 classes (CIFAR: 10).
END
    columns='| reference | network | parameters | multiply-adds | features | input | logits | features | logits, frozen | features, frozen |'
    line='| --- | --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |'
    printf '\n## The 81 networks of timm, and resnext101_32x48d, which it has a card of but no function\n\n%s\n%s\n%s\n' \
        "$columns" "$line" "$timm"
    printf '\n## Other sizes, dilation, pools; torchvision; CIFAR\n\n%s\n%s\n%s\n' "$columns" "$line" "$others"
} >docs/NETWORKS.md

# Other strides and pools are other networks than the names mean.
{
    printf 'architecture\treference\ttrainable\tfrozen\n'
    awk -F ' *[|] *' '
        function larger(a, b) { return a + 0 > b + 0 ? a : b }
        $3 !~ /,/ {
            key = $3 "\t" $2
            trainable[key] = larger(larger($8, $9), trainable[key])
            frozen[key] = larger(larger($10, $11), frozen[key])
        }
        END { for (key in trainable) print key "\t" trainable[key] "\t" frozen[key] }
    ' <<<"$rows" | LC_ALL=C sort
} >models/verified.tsv
