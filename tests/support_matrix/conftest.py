"""The front end of a test that `behaviour` marks."""

import pytest

from tests.support_matrix.keras_front_end import front_end


@pytest.fixture
def front(request):
    """A `FrontEnd`."""
    return front_end(request.param)
