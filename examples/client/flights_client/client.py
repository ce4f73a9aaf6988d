from typing import Any, Optional, Union

from .airport_now import AirportNow
from .base_client import BaseClient
from .base_model import UNSET, UnsetType
from .catalog import Catalog
from .departure_delay import DepartureDelay
from .lineage import Lineage
from .score import Score


def gql(q: str) -> str:
    return q


class FlightsClient(BaseClient):
    def airport_now(self, origin: str, **kwargs: Any) -> AirportNow:
        query = gql("""
            query AirportNow($origin: String! = "JFK") {
              airport(origin: $origin) {
                origin
                airportWeather {
                  temp
                  windSpeed
                  freezing
                  _meta {
                    status
                    eventTimestamp
                    version
                    cacheHit
                  }
                }
              }
              earlier: airport(origin: $origin, asOf: "2013-12-30T17:00:00Z") {
                airportWeather {
                  temp
                }
              }
              airports(keys: [{origin: "EWR"}, {origin: "LGA"}]) {
                origin
                airportWeather {
                  temp
                  poorVisibility
                }
              }
            }
            """)
        variables: dict[str, object] = {"origin": origin}
        response = self.execute(
            query=query, operation_name="AirportNow", variables=variables, **kwargs
        )
        data = self.get_data(response)
        return AirportNow.model_validate(data)

    def catalog(
        self,
        search: Union[Optional[str], UnsetType] = UNSET,
        first: Union[Optional[int], UnsetType] = UNSET,
        **kwargs: Any,
    ) -> Catalog:
        query = gql("""
            query Catalog($search: String = "weather", $first: Int = 10) {
              project {
                name
                revision
              }
              entities {
                name
                description
                joinKeys {
                  name
                  dtype
                }
                featureViews {
                  name
                }
              }
              featureViews(search: $search, first: $first) {
                totalCount
                nodes {
                  name
                  version
                  description
                  ttl
                  rules
                  source {
                    name
                    warehouse
                  }
                  features {
                    ref
                    dtype
                  }
                }
                pageInfo {
                  hasNextPage
                  endCursor
                }
              }
              feature(ref: "airport_weather:freezing") {
                description
                dtype
                sql
                featureView {
                  version
                }
              }
              featureService(name: "departure_delay") {
                version
                names
                references
              }
            }
            """)
        variables: dict[str, object] = {"search": search, "first": first}
        response = self.execute(
            query=query, operation_name="Catalog", variables=variables, **kwargs
        )
        data = self.get_data(response)
        return Catalog.model_validate(data)

    def departure_delay(
        self, entities: list[Any], spine: list[Any], **kwargs: Any
    ) -> DepartureDelay:
        query = gql("""
            query DepartureDelay($entities: [JSON!]! = [{origin: "JFK", tailnum: "N14228"}], $spine: [JSON!]! = [{origin: "JFK", tailnum: "N14228", event_timestamp: "2013-12-01T10:00:00Z"}]) {
              onlineFeatures(service: "departure_delay", entities: $entities) {
                names
                values
                statuses
                eventTimestamps
              }
              historicalFeatures(service: "departure_delay", spine: $spine)
            }
            """)
        variables: dict[str, object] = {"entities": entities, "spine": spine}
        response = self.execute(
            query=query, operation_name="DepartureDelay", variables=variables, **kwargs
        )
        data = self.get_data(response)
        return DepartureDelay.model_validate(data)

    def lineage(self, ref: str, view: str, **kwargs: Any) -> Lineage:
        query = gql("""
            query Lineage($ref: String! = "airport_weather:freezing", $view: String! = "airport_weather") {
              lineage(ref: $ref) {
                nodes {
                  id
                  kind
                  name
                  detail
                }
                edges {
                  source
                  target
                  role
                }
              }
              featureView(name: $view) {
                sql
                versions {
                  version
                  createdAt
                  createdBy
                  impact
                  changes
                }
              }
              search(text: "weather") {
                kind
                name
              }
            }
            """)
        variables: dict[str, object] = {"ref": ref, "view": view}
        response = self.execute(
            query=query, operation_name="Lineage", variables=variables, **kwargs
        )
        data = self.get_data(response)
        return Lineage.model_validate(data)

    def score(self, origin: str, tailnum: str, **kwargs: Any) -> Score:
        query = gql("""
            query Score($origin: String! = "JFK", $tailnum: String! = "N14228") {
              departureDelay(origin: $origin, tailnum: $tailnum) {
                temp
                windSpeed
                freezing
                seats
                lastDelay
                _meta {
                  version
                  names
                  statuses
                }
              }
            }
            """)
        variables: dict[str, object] = {"origin": origin, "tailnum": tailnum}
        response = self.execute(
            query=query, operation_name="Score", variables=variables, **kwargs
        )
        data = self.get_data(response)
        return Score.model_validate(data)
