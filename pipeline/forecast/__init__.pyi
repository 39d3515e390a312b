from .selections import (
    Forecast as Forecast,
    SelectionForecast as SelectionForecast,
    forecast_selections as forecast_selections,
)
