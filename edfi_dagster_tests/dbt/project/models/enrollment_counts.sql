select tenant_code, api_year, count(distinct v -> 'studentReference' ->> 'studentUniqueId') as students
from {{ source('raw_edfi_3', 'student_school_associations') }}
group by 1, 2
