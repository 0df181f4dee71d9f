"""Names of images, as Docker reads them."""

import pytest
from repro.environment.base_image import manifests_url


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("ubuntu", "https://registry-1.docker.io/v2/library/ubuntu/manifests"),
        ("docker.io/ubuntu", "https://registry-1.docker.io/v2/library/ubuntu/manifests"),
        ("nvidia/cuda", "https://registry-1.docker.io/v2/nvidia/cuda/manifests"),
        ("ghcr.io/a/b", "https://ghcr.io/v2/a/b/manifests"),
        ("example.org:5000/a", "https://example.org:5000/v2/a/manifests"),
        ("localhost:5000/a/b", "http://localhost:5000/v2/a/b/manifests"),
        ("127.0.0.1.example.org/a", "https://127.0.0.1.example.org/v2/a/manifests"),
    ],
)
def test_a_name_means_what_it_means_to_docker(name: str, url: str) -> None:
    assert manifests_url(name) == url
