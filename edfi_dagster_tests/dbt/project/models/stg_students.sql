-- The latest row of every student that is not deleted, as the edu packages stage it.
with latest as (
    select
        api.tenant_code,
        api.api_year,
        api.v ->> 'studentUniqueId' as student_unique_id,
        api.v ->> 'lastSurname' as last_surname,
        api.pull_timestamp,
        deletes.pull_timestamp is not null as is_deleted,
        coalesce(deletes.pull_timestamp, api.pull_timestamp) as last_modified_timestamp
    from {{ source('raw_edfi_3', 'students') }} as api
    left join {{ source('raw_edfi_3', '_deletes') }} as deletes
        on deletes.name = 'students'
        and deletes.tenant_code = api.tenant_code
        and deletes.api_year = api.api_year
        and replace(deletes.v ->> 'id', '-', '') = api.v ->> 'id'
    qualify row_number() over (
        partition by api.tenant_code, api.api_year, api.v ->> 'studentUniqueId'
        order by last_modified_timestamp desc, api.pull_timestamp desc
    ) = 1
)

select * exclude (is_deleted) from latest where not is_deleted
